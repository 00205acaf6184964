{#-
    The moment that counts as now (timestamptz): the variable as_of, else the latest moment a landed source stood at, else
    the epoch. Never the wall clock, so that a rebuild gives the same rows.
-#}
{% macro as_of() -%}
    {%- if var('as_of', none) -%}
        cast('{{ var("as_of") }}' as timestamptz)
    {%- else -%}
        (
            select coalesce(max(source_at), cast('1970-01-01 00:00:00+00' as timestamptz))
            from {{ source('platform', 'batches') }}
        )
    {%- endif -%}
{%- endmacro %}


{#- Snapshots take their time from the as-of clock as well, on each engine. -#}
{% macro duckdb__snapshot_get_time() -%}
    {{ as_of() }}
{%- endmacro %}


{% macro postgres__snapshot_get_time() -%}
    {{ as_of() }}
{%- endmacro %}
