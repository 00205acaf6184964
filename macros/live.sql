{#-
    What landed after the marts were built, read where it lies: a view over it answers with what is committed when it is asked,
    without a build.
-#}

{#- The landing sequence up to which fct_payments surely knows every charge: 0 where it is not built. -#}
{% macro sequence_built() -%}
    {%- set facts = ref('fct_payments') -%}
    {%- set built = load_relation(facts) if execute else none -%}
    {%- if built -%}
        {%- set batches = "select max(right(_batch_id, 12)) from " ~ built ~ " where source = 'oltp'" -%}
        {{ return((run_query(batches).columns[0].values()[0] or '0') | int) }}
    {%- endif -%}
    {{ return(0) }}
{%- endmacro %}


{#- The landed rows of an operational entity behind a landing sequence, in parentheses: its contract and the envelope. -#}
{% macro live_rows(entity, after) -%}
    {%- set landed = source('oltp', entity) -%}
    {%- if execute -%}
        {%- for node in raw_sources() if node.source_name == 'oltp' and node.name == entity -%}
            {{ adapter.dispatch('live_rows', 'payments')(landed, raw_columns(node), after) }}
        {%- endfor -%}
    {%- else -%}
        {{ landed }}
    {%- endif -%}
{%- endmacro %}


{% macro postgres__live_rows(landed, columns, after) -%}
    (select * from {{ landed }} where _sequence > {{ after }})
{%- endmacro %}


{#-
    The name of a file leads with the highest sequence it holds, so that a file without anything new is not opened. A file is
    visible when a commit record or a checkpoint reached its sequence. One that a compaction replaced lies there for a while: who
    reads takes the latest row of a key. Files are opened for their columns only where the oldest lacks one of the contract.
-#}
{% macro duckdb__live_rows(landed, columns, after) -%}
    {%- set folder = '/data/oltp/' ~ landed.identifier ~ '/' -%}
    {%- set files = sql_string(raw_zone_folder() ~ folder ~ '*.parquet') -%}
    {%- set first = run_query('select min(file) from glob(' ~ files ~ ')').columns[0].values()[0] -%}
    {%- if not first -%}{{ return('(' ~ typed_empty(columns) ~ ')') }}{%- endif -%}
    {%- set oldest = sql_string(as_no_pattern(first)) -%}
    {%- set present = run_query('select distinct name from parquet_schema(' ~ oldest ~ ')').columns[0].values() -%}
    {%- set lacking = columns | map('first') | reject('in', present) | list -%}
    {%- set rows -%}
        select * exclude (filename)
        from read_parquet(
            {{ files }}, filename = true, union_by_name = {{ 'true' if lacking else 'false' }}, hive_partitioning = false
        )
        where
            filename >= {{ sql_string(raw_zone_location() ~ folder ~ '%012d' % (after + 1)) }}
            and _sequence > {{ after }}
            and left(parse_filename(filename), 12) <= (
                select max(left(parse_filename(file), 12))
                from (
                    select file from glob({{ sql_string(raw_zone_folder() ~ '/commits/*.json') }})
                    union all
                    select file from glob({{ sql_string(raw_zone_folder() ~ '/checkpoints/*.json') }})
                )
            )
    {%- endset -%}
    ({{ typed_rows(columns, rows) }})
{%- endmacro %}


{#-
    Rows of an operational entity as they stand now, one a key: those of staging, and what landed behind a sequence over them.
    `among` limits the rows of staging that are looked at: a query that finds a row for each of them (`staged`).
-#}
{% macro current_rows(entity, key, columns, after, among=none) -%}
    {%- set names = (key + columns) | join(', ') -%}
    select {{ names }}
    from (
        select
            versions.*,
            row_number() over (
                partition by {{ key | join(', ') }}
                order by versions._position desc, versions._sequence desc
            ) as _recency
        from (
            select {{ names }}, _position, _sequence, is_deleted
            from {{ ref('stg_oltp__' ~ entity) }} as staged
            {%- if among %}
            where exists ({{ among }})
            {%- endif %}
            union all
            select {{ names }}, _position, _sequence, live._op = 'd' as is_deleted
            from {{ live_rows(entity, after) }} as live
        ) as versions
    ) as ranked
    where _recency = 1 and not is_deleted
{%- endmacro %}


{#- True where a moment is within the last hour before the relation live_moment. -#}
{% macro is_recent(moment) -%}
    {{ moment }} > live_moment.as_of_at - interval '60 minutes' and {{ moment }} <= live_moment.as_of_at
{%- endmacro %}


{#-
    Sums of measures of a relation by minute, merchant and currency, which it names minute_at, merchant_key and currency; `key`
    is the name of the surrogate key.
-#}
{% macro sums_by_minute(relation, key, measures) -%}
    select
        {{ surrogate_key(['minute_at', 'merchant_key', 'currency']) }} as {{ key }},
        minute_at,
        merchant_key,
        currency,
        {%- for measure in measures %}
        cast(sum({{ measure }}) as bigint) as {{ measure }}{{ ',' if not loop.last }}
        {%- endfor %}
    from {{ relation }}
    group by minute_at, merchant_key, currency
{%- endmacro %}
