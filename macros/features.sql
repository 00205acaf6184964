{#-
    Windows of the features. The order key counts millionths of a second: the second of the payment times 1,000,000, plus its
    number among the payments of that second. It is unique, so a payment never sees another of the same second that comes after it.
-#}

{#- Length of a window in order-key units. -#}
{% macro window_of(days=0, hours=0, minutes=0) -%}
    {{ return((((days * 24 + hours) * 60 + minutes) * 60) * 1000000) }}
{%- endmacro %}


{#- Half-open window (t - length, t]: the current payment is in, one exactly a length ago is out. -#}
{% macro trailing(entity, length) -%}
    (partition by {{ entity }} order by order_key range between {{ length - 1 }} preceding and current row)
{%- endmacro %}


{#- Half-open window (t - length, t): the current payment is out. -#}
{% macro trailing_past(entity, length) -%}
    (partition by {{ entity }} order by order_key range between {{ length - 1 }} preceding and 1 preceding)
{%- endmacro %}


{#- Everything before the current payment. -#}
{% macro all_past(entity) -%}
    (partition by {{ entity }} order by order_key range between unbounded preceding and 1 preceding)
{%- endmacro %}


{#- Half-open window (t - delay - length, t - delay]: payments old enough for their label to have arrived. -#}
{% macro trailing_delayed(entity, length, delay) -%}
    (
        partition by {{ entity }} order by order_key
        range between {{ delay + length - 1 }} preceding and {{ delay }} preceding
    )
{%- endmacro %}


{#- Integer sum over a named window, zero where the window is empty (bigint). -#}
{% macro window_sum(expression, window) -%}
    cast(coalesce(sum({{ expression }}) over {{ window }}, 0) as bigint)
{%- endmacro %}


{#- One integer divided by another, last of all and as doubles; null where the second is zero. -#}
{% macro ratio(numerator, denominator) -%}
    cast({{ numerator }} as double precision) / cast(nullif({{ denominator }}, 0) as double precision)
{%- endmacro %}


{#- A condition as a number: 1 where true, else 0 (bigint). -#}
{% macro flag(condition) -%}
    cast(case when {{ condition }} then 1 else 0 end as bigint)
{%- endmacro %}


{#- A number for an entity, to partition by; null for null. It never leaves the query, so each engine may number in its own way. -#}
{% macro entity_number(entity) -%}
    {{ return(adapter.dispatch('entity_number', 'payments')(entity)) }}
{%- endmacro %}

{% macro duckdb__entity_number(entity) -%}
    case when {{ entity }} is not null then hash({{ entity }}) end
{%- endmacro %}

{% macro postgres__entity_number(entity) -%}
    hashtextextended({{ entity }}, 0)
{%- endmacro %}
