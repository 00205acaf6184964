{#-
    The items of a JSON array that stands as text, a row each: `cross join lateral {{ json_items('x') }} as unnested (item)`.
    A text that is null, or an array without items, gives no row.
-#}
{% macro json_items(json_text) -%}
    {{ return(adapter.dispatch('json_items', 'payments')(json_text)) }}
{%- endmacro %}

{% macro duckdb__json_items(json_text) -%}
    unnest(cast(cast({{ json_text }} as json) as json []))
{%- endmacro %}

{% macro postgres__json_items(json_text) -%}
    jsonb_array_elements(cast({{ json_text }} as jsonb))
{%- endmacro %}


{#- A field of a JSON object under a type; null where it is null or missing. -#}
{% macro json_field(json_object, name, data_type='text') -%}
    cast({{ json_object }} ->> '{{ name }}' as {{ data_type }})
{%- endmacro %}
