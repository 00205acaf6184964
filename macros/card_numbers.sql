{#-
    Card number screening in SQL: issuer prefix, length, boundary, then the check digit (Luhn, ISO/IEC 7812-1 annex B).
    Digits may be parted by single spaces or hyphens; before and after stands no letter and no digit. The landing writer
    screens by the same rules (payments/vault/cards.py).
-#}

{#- Anchored patterns of issuer and length: the prefix, then so many more digits. -#}
{% macro card_number_patterns() -%}
    {%- set s = '[ -]?' -%}
    {%- set prefixes = [
        ['4', [12, 15, 18]],
        ['5' ~ s ~ '[1-5]', [14]],
        ['2' ~ s ~ '2' ~ s ~ '2' ~ s ~ '[1-9]', [12]],
        ['2' ~ s ~ '2' ~ s ~ '[3-9]', [13]],
        ['2' ~ s ~ '[3-6]', [14]],
        ['2' ~ s ~ '7' ~ s ~ '[01]', [13]],
        ['2' ~ s ~ '7' ~ s ~ '2' ~ s ~ '0', [12]],
        ['3' ~ s ~ '[47]', [13]],
        ['6' ~ s ~ '0' ~ s ~ '1' ~ s ~ '1', [12]],
        ['6' ~ s ~ '4' ~ s ~ '[4-9]', [13]],
        ['6' ~ s ~ '5', [14]],
        ['3' ~ s ~ '5' ~ s ~ '2' ~ s ~ '[89]', [12]],
        ['3' ~ s ~ '5' ~ s ~ '[3-8]', [13]],
        ['6' ~ s ~ '2', [14, 15, 16, 17]],
        ['3' ~ s ~ '[068]', [12]],
    ] -%}
    {%- set patterns = [] -%}
    {%- for prefix, lengths in prefixes -%}
        {%- for rest in lengths -%}
            {%- do patterns.append('^' ~ prefix ~ '(?:[ -]?[0-9]){' ~ rest ~ '}') -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(patterns) }}
{%- endmacro %}


{#- The first match of an anchored pattern in a text, null without one. -#}
{% macro regex_extract(text, pattern) -%}
    {{ return(adapter.dispatch('regex_extract', 'payments')(text, pattern)) }}
{%- endmacro %}

{% macro duckdb__regex_extract(text, pattern) -%}
    nullif(regexp_extract({{ text }}, {{ pattern }}), '')
{%- endmacro %}

{% macro postgres__regex_extract(text, pattern) -%}
    substring({{ text }} from {{ pattern }})
{%- endmacro %}


{#- True where a text of at most 19 digits passes the Luhn check. -#}
{% macro passes_luhn(digits) -%}
    (
        (
        {%- for place in range(1, 20) %}
            coalesce(cast(nullif(
                substr(reverse({{ digits }}), {{ place }}, 1), ''
            ) as integer), 0)
            {%- if place % 2 == 0 %} * 2 - case when coalesce(nullif(
                substr(reverse({{ digits }}), {{ place }}, 1), ''
            ), '0') > '4' then 9 else 0 end{% endif %}
            {{- ' +' if not loop.last }}
        {%- endfor %}
        ) % 10 = 0
    )
{%- endmacro %}
