{#- Day of a moment, in UTC. -#}
{% macro utc_date(moment) -%}
    cast({{ moment }} at time zone 'UTC' as date)
{%- endmacro %}


{#- Minute of the day of a moment, in UTC, from 0 (integer). -#}
{% macro utc_minute(moment) -%}
    cast(
        60 * extract(hour from {{ moment }} at time zone 'UTC') + extract(minute from {{ moment }} at time zone 'UTC') as integer
    )
{%- endmacro %}


{#- Whole seconds since 1970-01-01 00:00:00 UTC, rounded down (bigint). -#}
{% macro epoch_seconds(moment) -%}
    {{ return(adapter.dispatch('epoch_seconds', 'payments')(moment)) }}
{%- endmacro %}

{% macro duckdb__epoch_seconds(moment) -%}
    (epoch_us(date_trunc('second', {{ moment }})) // 1000000)
{%- endmacro %}

{% macro postgres__epoch_seconds(moment) -%}
    cast(extract(epoch from date_trunc('second', {{ moment }})) as bigint)
{%- endmacro %}


{#- Whole seconds since 1970-01-01 00:00:00 UTC, rounded up (bigint): when something known at that moment is surely known. -#}
{% macro epoch_seconds_up(moment) -%}
    ({{ epoch_seconds(moment) }} + case when {{ moment }} > date_trunc('second', {{ moment }}) then 1 else 0 end)
{%- endmacro %}


{#- The name that a number from 1 stands for. -#}
{% macro name_of(number, names) -%}
    case {{ number }}
    {%- for name in names %} when {{ loop.index }} then '{{ name }}'{% endfor %} end
{%- endmacro %}


{#- Whole seconds from one moment to a later one, rounded down (bigint). -#}
{% macro seconds_between(earlier, later) -%}
    {{ return(adapter.dispatch('seconds_between', 'payments')(earlier, later)) }}
{%- endmacro %}

{% macro duckdb__seconds_between(earlier, later) -%}
    ((epoch_us({{ later }}) - epoch_us({{ earlier }})) // 1000000)
{%- endmacro %}

{% macro postgres__seconds_between(earlier, later) -%}
    cast(trunc(extract(epoch from {{ later }} - {{ earlier }})) as bigint)
{%- endmacro %}
