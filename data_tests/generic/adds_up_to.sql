{#-
    Fails on values of the columns `by` for which the model's sums are not those of another relation: `sums` names columns of
    the model, and for each the expression over `to` that it adds up. `where` and `to_where` restrict the one and the other.
-#}
{% test adds_up_to(model, to, sums, by=[], where=none, to_where=none) %}
    {%- set sides = [
        ('aggregate', model, where, sums.keys() | list),
        ('fact', to, to_where, sums.values() | list),
    ] -%}
    with

    parts as (
    {%- for side, relation, condition, expressions in sides %}
        select
            '{{ side }}' as side,
            {%- for column in by %}
            {{ column }},
            {%- endfor %}
            {%- for measure in sums %}
            cast(coalesce(sum({{ expressions[loop.index0] }}), 0) as numeric(38, 0)) as {{ measure }}{{ ',' if not loop.last }}
            {%- endfor %}
        from {{ relation }}
        {%- if condition %}
        where {{ condition }}
        {%- endif %}
        {%- if by %}
        group by {{ by | join(', ') }}
        {%- endif %}
        {{ 'union all' if not loop.last }}
    {%- endfor %}
    )

    select
        {%- for column in by %}
        {{ column }},
        {%- endfor %}
        {%- for measure in sums %}
        sum(case when side = 'aggregate' then {{ measure }} else 0 end) as {{ measure }},
        sum(case when side = 'fact' then {{ measure }} else 0 end) as {{ measure }}_expected{{ ',' if not loop.last }}
        {%- endfor %}
    from parts
    {%- if by %}
    group by {{ by | join(', ') }}
    {%- endif %}
    having
        {%- for measure in sums %}
        {{ 'or ' if not loop.first }}sum(case when side = 'aggregate' then {{ measure }} else -{{ measure }} end) <> 0
        {%- endfor %}
{% endtest %}
