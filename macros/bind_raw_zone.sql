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


{#- The folder of the raw zone. -#}
{% macro raw_zone_location() -%}
    {{ return(env_var('PAYMENTS_RAW', '') or env_var('PAYMENTS_HOME', '.payments') ~ '/raw') }}
{%- endmacro %}


{#- The same, written so that [, * and ? in its name are no patterns to DuckDB's readers. -#}
{% macro raw_zone_folder() -%}
    {{ return(as_no_pattern(raw_zone_location())) }}
{%- endmacro %}


{% macro as_no_pattern(path) -%}
    {{ return(modules.re.sub('([\\[*?])', '[\\1]', path)) }}
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


{#-
    Notes in the raw zone which warehouse binds its views now: files that are current now stay for as long as they may be
    named in them (ingestion/compaction.py).
-#}
{% macro note_pin(folder) -%}
    {%- set found = run_query('select path from duckdb_databases() where database_name = current_database() and path is not null') -%}
    {%- if found.rows -%}
        {%- set warehouse = found.columns[0].values()[0] -%}
        {%- set pin = folder ~ '/pin-' ~ local_md5(warehouse) ~ '.json' -%}
        {%- do run_query('copy (select ' ~ sql_string(warehouse) ~ ' as warehouse) to ' ~ sql_string(pin) ~ ' (format json)') -%}
    {%- endif -%}
{%- endmacro %}


{% macro duckdb__bind_raw_zone() -%}
    {%- set raw = raw_zone_folder() -%}
    {%- set landed = 'select file from glob(' ~ sql_string(raw ~ '/commits/*.json') ~ ')' -%}
    {%- set merged = 'select max(file) from glob(' ~ sql_string(raw ~ '/checkpoints/*.json') ~ ')' -%}
    {%- set checkpoint = run_query(merged).columns[0].values()[0] -%}
    {%- if checkpoint or run_query(landed ~ ' limit 1').rows -%}
        {%- do note_pin(raw_zone_location()) -%}
        {%- set checkpoint = run_query(merged).columns[0].values()[0] -%}
    {%- else -%}
        {%- do log_nothing_landed() -%}
    {%- endif -%}

    {#- The checkpoint stands for every commit record up to its own sequence; only those after it count. -#}
    {%- set commits = [] -%}
    {%- set last = (checkpoint or '') | replace('\\', '/') -%}
    {%- for row in run_query(landed ~ " where parse_filename(file) > " ~ sql_string(last.split('/') | last) ~ ' order by file') -%}
        {%- do commits.append(row[0]) -%}
    {%- endfor -%}

    {#- Files by entity, from checkpoint and commit records alone: a file that none of them names is not visible. -#}
    {%- set files = {} -%}
    {%- if commits or checkpoint -%}
        {%- set named -%}
            {%- if checkpoint -%}
                {{ checkpointed_files(checkpoint) }}
            {%- endif -%}
            {%- if checkpoint and commits %} union all {% endif -%}
            {%- if commits -%}
                {{ landed_files(commits) }}
            {%- endif %}
            order by all
        {%- endset -%}
        {%- for row in run_query(named) -%}
            {%- set place = row[0].split('/') -%}
            {%- set entity = place[0] if place[0] != 'data' else place[1] ~ '.' ~ place[2] -%}
            {%- do files.setdefault(entity, []).append(raw ~ '/' ~ row[0]) -%}
        {%- endfor -%}
    {%- endif -%}

    {%- for node in raw_sources() %}
        {%- set relation = node.schema ~ '.' ~ node.identifier %}
        {%- set columns = raw_columns(node) %}
        create schema if not exists {{ node.schema }};
        {%- if relation == 'raw_platform.batches' and commits %}
        {#- A table, for commit records go as soon as a checkpoint stands for them. -#}
        create or replace table raw_platform.recent_batches as {{ batches_of(commits) }};
        {%- endif %}
        create or replace view {{ relation }} as
        {%- if relation == 'raw_platform.batches' and commits %}
            select * from raw_platform.recent_batches
            {%- if files.get('platform.batches') %}
            union all by name
            {{ typed_files(columns, files['platform.batches']) }}
            {%- endif %};
        {%- elif relation == 'raw_platform.quarantine' and files.get('quarantine') %}
            {{ typed_files(columns, files['quarantine']) }};
        {%- elif files.get(node.source_name ~ '.' ~ node.name) %}
            {{ typed_files(columns, files[node.source_name ~ '.' ~ node.name]) }};
        {%- else %}
            {{ typed_empty(columns) }};
        {%- endif %}
    {%- endfor %}
{%- endmacro %}


{#- Rows of Parquet files under the types of the contract. -#}
{% macro typed_files(columns, paths) -%}
    {{ typed_rows(
        columns,
        'select * from read_parquet(' ~ sql_string_list(paths) ~ ', union_by_name = true, hive_partitioning = false)'
    ) }}
{%- endmacro %}


{#- The rows of a query under the types of the contract; a column that it lacks is null. -#}
{% macro typed_rows(columns, query) -%}
    select
    {%- for name, data_type in columns %}
        cast({{ name }} as {{ data_type }}) as {{ name }}{{ ',' if not loop.last }}
    {%- endfor %}
    from (
        {{ typed_empty(columns) }}
        union all by name
        {{ query }}
    )
{%- endmacro %}


{#- The names of data and quarantine files, as a checkpoint has them. -#}
{% macro checkpointed_files(checkpoint) -%}
    select file.name as name
    from (
        select unnest(flatten(map_values(files))) as file
        from read_json({{ sql_string(checkpoint) }}, columns = {files: 'map(varchar, struct(name varchar)[])'})
    )
    where not starts_with(file.name, 'resolved/')
{%- endmacro %}


{#- The same, of batches that landed since. -#}
{% macro landed_files(commits) -%}
    select unnest(files || quarantine_files) as name
    from (select unnest(entities, max_depth := 2) from ({{ committed_batches(commits) }}))
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
