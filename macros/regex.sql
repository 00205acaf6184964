{#- True where the text contains a match of the regular expression (the dialect both engines share). -#}
{% macro regex_match(text, pattern) -%}
    {{ return(adapter.dispatch('regex_match', 'payments')(text, pattern)) }}
{%- endmacro %}

{% macro duckdb__regex_match(text, pattern) -%}
    regexp_matches({{ text }}, '{{ pattern }}')
{%- endmacro %}

{% macro postgres__regex_match(text, pattern) -%}
    ({{ text }} ~ '{{ pattern }}')
{%- endmacro %}


{#- The text without everything but its digits. -#}
{% macro digits_of(text) -%}
    regexp_replace({{ text }}, '[^0-9]', '', 'g')
{%- endmacro %}
