{#- Fails on rows where the expression is not true; a null result is not true. -#}
{% test is_true(model, expression) %}
    select *
    from {{ model }}
    where ({{ expression }}) is not true
{% endtest %}
