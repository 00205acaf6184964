{#-
    Fails on every text value of a model that holds a card number. The text columns are those the model declares; columns the
    landing writer makes itself (they start with an underscore) hold no source text. The failing rows name the column and the
    batch, never the number.
-#}
{% test no_card_numbers(model) %}
    {%- set text_columns = [] -%}
    {%- if execute -%}
        {%- for node in graph.nodes.values() if node.resource_type == 'model' and node.alias == model.identifier -%}
            {%- for column in node.columns.values()
                if column.data_type == 'text' and not column.name.startswith('_') -%}
                {%- do text_columns.append(column.name) -%}
            {%- endfor -%}
        {%- endfor -%}
        {%- if not text_columns -%}
            {%- do exceptions.raise_compiler_error('no_card_numbers: ' ~ model ~ ' declares no text column.') -%}
        {%- endif -%}
    {%- endif -%}

    with

    -- Only values with at least thirteen digits in a row (parted by single separators or not) can hold a card number.
    suspects as (
    {%- for column in text_columns %}
        select
            '{{ column }}' as column_name,
            {{ column }} as value
        from {{ model }}
        where {{ regex_match(column, '[0-9](?:[ -]?[0-9]){12}') }}
        {%- if not loop.last %}
        union all
        {%- endif %}
    {%- else %}
        select
            cast(null as text) as column_name,
            cast(null as text) as value
    {%- endfor %}
    ),

    distinct_suspects as (
        select
            column_name,
            value,
            count(*) as row_count
        from suspects
        group by column_name, value
    ),

    patterns as (
    {%- for pattern in card_number_patterns() %}
        select '{{ pattern }}' as pattern
        {%- if not loop.last %}
        union all
        {%- endif %}
    {%- endfor %}
    ),

    -- Every place where a digit follows a boundary can begin a card number.
    beginnings as (
        select
            distinct_suspects.column_name,
            distinct_suspects.row_count,
            substr(distinct_suspects.value, cast(places.place as integer)) as rest
        from distinct_suspects
        cross join generate_series(1, (select coalesce(max(length(value)), 1) from distinct_suspects)) as places (place)
        where
            places.place <= length(distinct_suspects.value)
            and {{ regex_match("substr(' ' || distinct_suspects.value, cast(places.place as integer), 2)", '^[^0-9A-Za-z][0-9]') }}
    ),

    candidates as (
        select
            beginnings.column_name,
            beginnings.row_count,
            beginnings.rest,
            {{ regex_extract('beginnings.rest', 'patterns.pattern') }} as candidate
        from beginnings
        cross join patterns
    ),

    bounded as (
        select
            column_name,
            row_count,
            {{ digits_of('candidate') }} as digits
        from candidates
        where
            candidate is not null
            and not {{ regex_match("substr(rest, length(candidate) + 1, 1)", '^[0-9A-Za-z]') }}
    ),

    final as (
        select
            column_name,
            length(digits) as digit_count,
            sum(row_count) as row_count
        from bounded
        where {{ passes_luhn('digits') }}
        group by column_name, length(digits)
    )

    select * from final
{% endtest %}
