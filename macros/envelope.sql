{#- The envelope that the landing writer appends to every record, as [name, data type] pairs. -#}
{% macro envelope_columns() -%}
    {{ return([
        ['_op', 'text'],
        ['_key', 'text'],
        ['_before', 'text'],
        ['_unchanged_columns', 'text'],
        ['_position', 'text'],
        ['_source_at', 'timestamptz'],
        ['_transaction_id', 'text'],
        ['_schema_version', 'integer'],
        ['_content_hash', 'text'],
        ['_batch_id', 'text'],
        ['_sequence', 'bigint'],
    ]) }}
{%- endmacro %}


{#- All columns of a raw relation as [name, data type] pairs: its contract, then the envelope where the source has one. -#}
{% macro raw_columns(source_node) -%}
    {%- set columns = [] -%}
    {%- for column in source_node.columns.values() -%}
        {%- do columns.append([column.name, column.data_type]) -%}
    {%- endfor -%}
    {%- if source_node.source_meta.get('envelope') or source_node.config.get('meta', {}).get('envelope') -%}
        {%- do columns.extend(envelope_columns()) -%}
    {%- endif -%}
    {{ return(columns) }}
{%- endmacro %}


{#-
    The latest version of each record of a landed relation (a CTE or relation with the envelope). A deletion is the latest
    version of a record that is gone: it stays, and the model marks it is_deleted.
-#}
{% macro latest_versions(relation) -%}
    select versioned.*
    from (
        select
            landed.*,
            row_number() over (
                partition by landed._key
                order by landed._position desc, landed._sequence desc
            ) as _recency
        from {{ relation }} as landed
    ) as versioned
    where versioned._recency = 1
{%- endmacro %}
