{#-
    Landed JSON text, read where a document holds a list that has no column of its own. Every macro gives null for null.
-#}

{#- How many elements a list has (integer). -#}
{% macro json_array_length(document) -%}
    {{ return(adapter.dispatch('json_array_length', 'payments')(document)) }}
{%- endmacro %}

{% macro duckdb__json_array_length(document) -%}
    cast(json_array_length({{ document }}) as integer)
{%- endmacro %}

{% macro postgres__json_array_length(document) -%}
    jsonb_array_length(cast({{ document }} as jsonb))
{%- endmacro %}


{#- The sum of one whole-number field over a list of objects (bigint); null for an empty list. -#}
{% macro json_array_sum(document, field) -%}
    {{ return(adapter.dispatch('json_array_sum', 'payments')(document, field)) }}
{%- endmacro %}

{% macro duckdb__json_array_sum(document, field) -%}
    cast(list_sum(cast(json_extract({{ document }}, '$[*].{{ field }}') as bigint [])) as bigint)
{%- endmacro %}

{% macro postgres__json_array_sum(document, field) -%}
    (
        select cast(sum(cast(elements.element ->> '{{ field }}' as bigint)) as bigint)
        from jsonb_array_elements(cast({{ document }} as jsonb)) as elements (element)
    )
{%- endmacro %}


{#- One field of an object in a list, as text; place 0 is the first, -1 the last. -#}
{% macro json_array_field(document, place, field) -%}
    {{ return(adapter.dispatch('json_array_field', 'payments')(document, place, field)) }}
{%- endmacro %}

{% macro duckdb__json_array_field(document, place, field) -%}
    json_extract_string({{ document }}, '$[{{ place if place >= 0 else '#' ~ place }}].{{ field }}')
{%- endmacro %}

{% macro postgres__json_array_field(document, place, field) -%}
    (cast({{ document }} as jsonb) -> {{ place }} ->> '{{ field }}')
{%- endmacro %}


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
