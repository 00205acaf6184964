{#-
    Money is integer minor units and a currency. These macros are the only place where amounts are divided, and every
    division rounds half to even, in exact integer arithmetic: no float takes part.
-#}

{#- An exact integer type that holds an amount times a rate. -#}
{% macro type_wide_integer() -%}
    {{ return(adapter.dispatch('type_wide_integer', 'payments')()) }}
{%- endmacro %}

{% macro duckdb__type_wide_integer() -%} hugeint {%- endmacro %}

{% macro postgres__type_wide_integer() -%} numeric(38, 0) {%- endmacro %}


{#- Quotient of two non-negative wide integers, rounded down. -#}
{% macro integer_quotient(numerator, denominator) -%}
    {{ return(adapter.dispatch('integer_quotient', 'payments')(numerator, denominator)) }}
{%- endmacro %}

{% macro duckdb__integer_quotient(numerator, denominator) -%}
    ({{ numerator }} // {{ denominator }})
{%- endmacro %}

{% macro postgres__integer_quotient(numerator, denominator) -%}
    div({{ numerator }}, {{ denominator }})
{%- endmacro %}


{#- numerator / denominator rounded half to even (bigint). Both are integer expressions; the denominator is positive. -#}
{% macro divide_half_even(numerator, denominator) -%}
    {%- set size = 'abs(cast(' ~ numerator ~ ' as ' ~ type_wide_integer() ~ '))' -%}
    {%- set by = 'cast(' ~ denominator ~ ' as ' ~ type_wide_integer() ~ ')' -%}
    {%- set quotient = integer_quotient(size, by) -%}
    cast(
        sign({{ numerator }}) * (
            {{ quotient }}
            + case
                when 2 * ({{ size }} % {{ by }}) > {{ by }} then 1
                when 2 * ({{ size }} % {{ by }}) = {{ by }} then {{ quotient }} % 2
                else 0
            end
        ) as bigint
    )
{%- endmacro %}


{#- 10 to the power of an exponent from 0 to 12 (bigint). -#}
{% macro power_of_ten(exponent) -%}
    (
        case {{ exponent }}
        {%- for n in range(13) %}
            when {{ n }} then {{ 10 ** n }}
        {%- endfor %}
        end
    )
{%- endmacro %}


{#- Minor units as major units, exact: numeric(24, 4). -#}
{% macro minor_to_major(amount_minor, exponent) -%}
    cast(
        cast({{ amount_minor }} as numeric(20, 0)) * (
            case {{ exponent }}
            {%- for n in range(5) %}
                when {{ n }} then cast({{ '1' if n == 0 else '0.' ~ '0' * (n - 1) ~ '1' }} as numeric(5, 4))
            {%- endfor %}
            end
        ) as numeric(24, 4)
    )
{%- endmacro %}


{#-
    Minor units of one currency as minor units of the reporting currency, half to even (bigint); null without a rate.
    rate is numeric(18, 8): major units of the reporting currency for one major unit of the currency.
-#}
{% macro convert_minor(amount_minor, exponent, rate, reporting_exponent) -%}
    {%- set numerator -%}
        (cast({{ amount_minor }} as {{ type_wide_integer() }}) * cast({{ rate }} * 100000000 as {{ type_wide_integer() }}))
    {%- endset -%}
    {{ divide_half_even(numerator, power_of_ten('8 + ' ~ exponent ~ ' - ' ~ reporting_exponent)) }}
{%- endmacro %}


{#-
    The rows of a relation with what a conversion needs: exponent, reporting_exponent and rate_to_reporting, the book rate of
    the day that `day` names (before the first book rate the first one, after the last one the last; null without one). The
    model holds the CTEs currencies and rates (int_exchange_rates_daily).
-#}
{% macro with_rate_of_day(relation, day) -%}
    select
        {{ relation }}.*,
        currencies.exponent,
        reporting.exponent as reporting_exponent,
        rates.rate_to_reporting
    from {{ relation }}
    inner join currencies
        on {{ relation }}.currency = currencies.currency
    -- The reporting currency is the dollar: book rates are kept against it.
    inner join currencies as reporting
        on reporting.currency = 'USD'
    left join rates
        on
            {{ relation }}.currency = rates.currency
            and rates.rate_day = least(
                greatest({{ relation }}.{{ day }}, (select min(first_rates.rate_day) from rates as first_rates)),
                (select max(last_rates.rate_day) from rates as last_rates)
            )
{%- endmacro %}


{#- An amount of a relation made by with_rate_of_day, in minor units of the reporting currency. -#}
{% macro reporting_minor(amount_minor) -%}
    {{ convert_minor(amount_minor, 'exponent', 'rate_to_reporting', 'reporting_exponent') }}
{%- endmacro %}


{#-
    What an amount that recurs every interval_count intervals comes to in a month, half to even in one step (bigint): a year has
    365 days, 52 weeks and 12 months. Null for an interval that is none.
-#}
{% macro monthly_minor(amount_minor, billing_interval, interval_count) -%}
    {%- set a_year -%}
        (
            cast({{ amount_minor }} as {{ type_wide_integer() }})
            * case {{ billing_interval }} when 'day' then 365 when 'week' then 52 when 'month' then 12 when 'year' then 1 end
        )
    {%- endset -%}
    {{ divide_half_even(a_year, '(12 * ' ~ interval_count ~ ')') }}
{%- endmacro %}
