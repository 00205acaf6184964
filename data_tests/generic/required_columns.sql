{#-
    Fails for each column that is null where it must not be, with the number of such rows: `columns` in every row,
    `unless_deleted` in rows that are no tombstones. One query a model.
-#}
{% test required_columns(model, columns, unless_deleted=[]) %}
    with

    missing as (
    {%- for column in columns %}
        select
            '{{ column }}' as column_name,
            count(*) as row_count
        from {{ model }}
        where {{ column }} is null
        {%- if not loop.last or unless_deleted %}
        union all
        {%- endif %}
    {%- endfor %}
    {%- for column in unless_deleted %}
        select
            '{{ column }}' as column_name,
            count(*) as row_count
        from {{ model }}
        where {{ column }} is null and not is_deleted
        {%- if not loop.last %}
        union all
        {%- endif %}
    {%- endfor %}
    )

    select * from missing
    where row_count > 0
{% endtest %}
