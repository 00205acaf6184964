{#-
    Fails on facts whose version of the merchant (and of the customer, where `customers` is given) is none of that member, or did
    not hold at the moment, an expression over `facts`. `merchants` and `customers` are the dimensions of versions.
-#}
{% test versions_held(model, moment, merchants, customers=none) %}
    {%- set dimensions = {'merchant': merchants, 'customer': customers} if customers else {'merchant': merchants} -%}
    select facts.*
    from {{ model }} as facts
    {%- for member, dimension in dimensions.items() %}
    left join {{ dimension }} as {{ member }}_versions
        on facts.{{ member }}_version_key = {{ member }}_versions.{{ member }}_version_key
    {%- endfor %}
    where (
        {%- for member in dimensions %}
        {{ 'and ' if not loop.first }}facts.{{ member }}_key = {{ member }}_versions.{{ member }}_key
        and {{ moment }} >= {{ member }}_versions.valid_from
        and {{ moment }} < {{ member }}_versions.valid_to
        {%- endfor %}
    ) is not true
{% endtest %}
