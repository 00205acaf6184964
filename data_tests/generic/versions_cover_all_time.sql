{#-
    Fails on versions of a dimension that are not numbered from 1, hold for no time, leave a gap or overlap, do not reach from the
    beginning to the end of time, or are current and not the last; and on each member of the dimension `of` (by `key`) that has
    no version. So at any moment exactly one version of a member holds.
-#}
{% test versions_cover_all_time(model, key, of) %}
    with

    versions as (
        select
            {{ key }},
            version_number,
            valid_from,
            valid_to,
            is_current,
            row_number() over (partition by {{ key }} order by version_number) as place,
            lag(valid_to) over (partition by {{ key }} order by version_number) as former_to,
            lead(valid_from) over (partition by {{ key }} order by version_number) as next_from
        from {{ model }}
    )

    select
        members.{{ key }},
        versions.version_number,
        versions.valid_from,
        versions.valid_to
    from {{ of }} as members
    full join versions
        on members.{{ key }} = versions.{{ key }}
    where
        members.{{ key }} is null
        or versions.{{ key }} is null
        or versions.version_number <> versions.place
        or versions.valid_from >= versions.valid_to
        or versions.valid_from <> coalesce(versions.former_to, {{ beginning_of_time() }})
        or versions.valid_to <> coalesce(versions.next_from, {{ end_of_time() }})
        or versions.is_current <> (versions.next_from is null)
{% endtest %}
