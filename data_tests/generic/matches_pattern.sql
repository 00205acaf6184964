{#- Fails on values that do not match the regular expression; a null value is no value. -#}
{% test matches_pattern(model, column_name, pattern) %}
    select {{ column_name }}
    from {{ model }}
    where
        {{ column_name }} is not null
        and not {{ regex_match(column_name, pattern) }}
{% endtest %}
