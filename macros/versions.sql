{#-
    Dimensions of type 7: a fact holds the key of its member, and that of the version of the member which held when it happened.
-#}

{#- The moment from which the first version of every member holds. -#}
{% macro beginning_of_time() -%}
    cast('1900-01-01 00:00:00+00' as timestamptz)
{%- endmacro %}


{#- The moment until before which the last version of every member holds. -#}
{% macro end_of_time() -%}
    cast('9999-12-31 00:00:00+00' as timestamptz)
{%- endmacro %}


{#-
    The versions of a history (a CTE or relation like hist_*) stretched over all time: its columns, then place (from 1), held_from,
    held_to, is_last and deleted_at. `key` is the column that names the member.

    - A version holds until the next one, also where the record was gone in between: deleted_at tells since when.
    - A version that held for no time is left out, unless nothing comes after it.
    - What happened before the first version, or after the record went, belongs to the first or the last one.
-#}
{% macro versions_over_all_time(history, key) -%}
    with

    followed as (
        select
            versions.*,
            lead(versions.valid_from) over (partition by versions.{{ key }} order by versions.version_number) as next_from
        from {{ history }} as versions
    ),

    held as (
        select
            followed.*,
            row_number() over (partition by followed.{{ key }} order by followed.version_number) as place
        from followed
        where
            followed.next_from is null
            or followed.valid_from < followed.next_from
    )

    select
        held.*,
        case when held.place = 1 then {{ beginning_of_time() }} else held.valid_from end as held_from,
        coalesce(held.next_from, {{ end_of_time() }}) as held_to,
        held.next_from is null as is_last,
        case when held.is_deleted_at_end then held.valid_to end as deleted_at
    from held
{%- endmacro %}


{#-
    A relation (CTE) with merchant_key or customer_key, and the version of each of its members (merchant, customer) that held at
    a moment, an expression over it: <member>_version_key. Reads the relations merchant_versions and customer_versions. No row
    is lost and none doubled, since versions cover all time; a member that has no version yet gets that of the unknown member.
-#}
{% macro with_versions(relation, moment, members) -%}
    select
        {{ relation }}.*
        {%- for member in members %},
        coalesce({{ member }}_versions.{{ member }}_version_key, {{ unknown_key() }}) as {{ member }}_version_key
        {%- endfor %}
    from {{ relation }}
    {%- for member in members %}
    left join {{ member }}_versions
        on
            {{ relation }}.{{ member }}_key = {{ member }}_versions.{{ member }}_key
            and {{ moment }} >= {{ member }}_versions.valid_from
            and {{ moment }} < {{ member }}_versions.valid_to
    {%- endfor %}
{%- endmacro %}
