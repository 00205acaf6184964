{#-
    Fails on rows whose columns (all of them given) name no row of another model by the same names. The databases that rows
    come from keep their foreign keys; what this finds is a row whose counterpart was quarantined.
-#}
{% test refers_to(model, columns, to) %}
    with

    child as (
        select * from {{ model }}
    )

    select child.*
    from child
    left join {{ to }} as parent
        on
        {%- for column in columns %}
            {{ 'and ' if not loop.first }}child.{{ column }} = parent.{{ column }}
        {%- endfor %}
    where
        parent.{{ columns[0] }} is null
        {%- for column in columns %}
        and child.{{ column }} is not null
        {%- endfor %}
{% endtest %}
