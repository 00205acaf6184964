{#-
    Binds the raw zone to this run, before anything else runs. The last committed landing sequence is pinned: every model of the
    run sees exactly the batches committed by now. What has not landed exists as a typed empty relation, so that a build always works.

    DuckDB: views raw_<source>.<table> over the committed Parquet files.
    PostgreSQL: tables raw_<source>.<table>, made where missing; `payments load postgres` fills them.
-#}
{% macro bind_raw_zone() -%}
    {%- if execute -%}
        {{ return(adapter.dispatch('bind_raw_zone', 'payments')()) }}
    {%- endif -%}
{%- endmacro %}


{% macro raw_sources() -%}
    {%- set found = [] -%}
    {%- for node in graph.sources.values() if node.package_name == 'payments' and node.schema.startswith('raw_') -%}
        {%- do found.append(node) -%}
    {%- endfor -%}
    {{ return(found | sort(attribute='unique_id')) }}
{%- endmacro %}


{% macro log_nothing_landed() -%}
    {%- do log(
        'Nothing has landed yet, so every source is empty. `payments land` lands the operational stores, '
        ~ '`payments land transactions FILE` a file of transactions.', info=true
    ) -%}
{%- endmacro %}


{#- The folder of the raw zone, written so that [, * and ? in its name are no patterns to DuckDB's readers. -#}
{% macro raw_zone_folder() -%}
    {%- set folder = env_var('PAYMENTS_RAW', '') or env_var('PAYMENTS_HOME', '.payments') ~ '/raw' -%}
    {{ return(modules.re.sub('([\\[*?])', '[\\1]', folder)) }}
{%- endmacro %}


{% macro sql_string(value) -%}
    {{ return("'" ~ (value | replace("'", "''")) ~ "'") }}
{%- endmacro %}


{% macro sql_string_list(values) -%}
    {%- set quoted = [] -%}
    {%- for value in values -%}{%- do quoted.append(sql_string(value)) -%}{%- endfor -%}
    {{ return('[' ~ (quoted | join(', ')) ~ ']') }}
{%- endmacro %}


{#- A select of no rows with the given [name, data type] columns. -#}
{% macro typed_empty(columns) -%}
    select
    {%- for name, data_type in columns %}
        cast(null as {{ data_type }}) as {{ name }}{{ ',' if not loop.last }}
    {%- endfor %}
    where 1 = 0
{%- endmacro %}


{% macro duckdb__bind_raw_zone() -%}
    {%- set raw = raw_zone_folder() -%}
    {%- set commits = [] -%}
    {%- for row in run_query('select file from glob(' ~ sql_string(raw ~ '/commits/*.json') ~ ') order by file') -%}
        {%- do commits.append(row[0]) -%}
    {%- endfor -%}
    {%- if not commits -%}{%- do log_nothing_landed() -%}{%- endif -%}

    {#- Files by entity, from the commit records alone: a file that no record names is not visible. -#}
    {%- set files = {} -%}
    {%- set quarantine_files = [] -%}
    {%- if commits -%}
        {%- set named -%}
            with entities as (select source, unnest(entities, max_depth := 2) from ({{ committed_batches(commits) }}))
            select source, entity, 'data' as kind, unnest(files) as file from entities
            union all
            select source, entity, 'quarantine' as kind, unnest(quarantine_files) as file from entities
            order by all
        {%- endset -%}
        {%- for row in run_query(named) -%}
            {%- if row[2] == 'quarantine' -%}
                {%- do quarantine_files.append(raw ~ '/' ~ row[3]) -%}
            {%- else -%}
                {%- do files.setdefault(row[0] ~ '.' ~ row[1], []).append(raw ~ '/' ~ row[3]) -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}

    {%- for node in raw_sources() %}
        {%- set relation = node.schema ~ '.' ~ node.identifier %}
        {%- set columns = raw_columns(node) %}
        create schema if not exists {{ node.schema }};
        create or replace view {{ relation }} as
        {%- if relation == 'raw_platform.batches' and commits %}
            {{ batches_of(commits) }};
        {%- elif relation == 'raw_platform.quarantine' and quarantine_files %}
            {{ typed_files(columns, quarantine_files) }};
        {%- elif files.get(node.source_name ~ '.' ~ node.name) %}
            {{ typed_files(columns, files[node.source_name ~ '.' ~ node.name]) }};
        {%- else %}
            {{ typed_empty(columns) }};
        {%- endif %}
    {%- endfor %}
{%- endmacro %}


{#- Rows of Parquet files under the types of the contract; a column that an older file lacks is null. -#}
{% macro typed_files(columns, paths) -%}
    select
    {%- for name, data_type in columns %}
        cast({{ name }} as {{ data_type }}) as {{ name }}{{ ',' if not loop.last }}
    {%- endfor %}
    from (
        {{ typed_empty(columns) }}
        union all by name
        select * from read_parquet({{ sql_string_list(paths) }}, union_by_name = true, hive_partitioning = false)
    )
{%- endmacro %}


{% macro committed_batches(commits) -%}
    select *
    from read_json(
        {{ sql_string_list(commits) }},
        format = 'auto',
        columns = {
            sequence: 'bigint',
            batch_id: 'varchar',
            source: 'varchar',
            kind: 'varchar',
            origin: 'varchar',
            position: 'varchar',
            source_at: 'timestamptz',
            landed_at: 'timestamptz',
            code_version: 'varchar',
            entities: 'struct(
                entity varchar, schema_version integer, read bigint, accepted bigint, unchanged bigint,
                quarantined bigint, deleted bigint, files varchar[], quarantine_files varchar[]
            )[]'
        }
    )
{%- endmacro %}


{% macro batches_of(commits) -%}
    select
        batch_id,
        sequence,
        source,
        entity.entity as entity,
        kind,
        origin,
        position,
        source_at,
        landed_at,
        code_version,
        entity.schema_version as schema_version,
        entity.read as read_count,
        entity.accepted as accepted_count,
        entity.unchanged as unchanged_count,
        entity.quarantined as quarantined_count,
        entity.deleted as deleted_count
    from (select *, unnest(entities) as entity from ({{ committed_batches(commits) }}))
{%- endmacro %}


{% macro postgres__bind_raw_zone() -%}
    {%- set present = run_query("select to_regclass('raw_platform.batches') is not null") -%}
    {%- set loaded = present.columns[0].values()[0]
        and run_query('select exists (select 1 from raw_platform.batches)').columns[0].values()[0] -%}
    {%- if not loaded -%}
        {%- do log_nothing_landed() -%}
        {%- do log('What has landed reaches this warehouse by `payments load postgres`.', info=true) -%}
    {%- endif -%}
    {%- for node in raw_sources() %}
        create schema if not exists {{ node.schema }};
        create table if not exists {{ node.schema }}.{{ node.identifier }} (
        {%- for name, data_type in raw_columns(node) %}
            {{ name }} {{ data_type }}{{ ',' if not loop.last }}
        {%- endfor %}
        );
    {%- endfor %}
{%- endmacro %}
