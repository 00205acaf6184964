{#- How aggregates are made: rates in basis points, and periods that add up what stands by day. -#}

{#- A part of a whole in basis points, rounded half to even (bigint); null where the whole is zero. -#}
{% macro basis_points(part, whole) -%}
    {{ divide_half_even('10000 * cast(' ~ part ~ ' as ' ~ type_wide_integer() ~ ')', 'nullif(' ~ whole ~ ', 0)') }}
{%- endmacro %}


{#- First day of the week (Monday, ISO 8601) or month that a day lies in. -#}
{% macro period_start(period, day) -%}
    cast(date_trunc('{{ period }}', {{ day }}) as date)
{%- endmacro %}


{#- Calendar months from the month of one day to that of a later one (integer). -#}
{% macro months_between(earlier, later) -%}
    cast(
        12 * (extract(year from {{ later }}) - extract(year from {{ earlier }}))
        + extract(month from {{ later }}) - extract(month from {{ earlier }}) as integer
    )
{%- endmacro %}


{#- Sums of a relation like agg_revenue_daily by period (week or month), merchant, currency and country. -#}
{% macro revenue_by(period, relation) -%}
    select
        {{ surrogate_key([period_start(period, 'revenue_on'), 'merchant_key', 'currency', 'customer_country']) }}
            as revenue_{{ period }}ly_key,
        {{ period_start(period, 'revenue_on') }} as {{ period }}_start_on,
        merchant_key,
        currency,
        customer_country,
        {%- for measure in [
            'payment_count', 'captured_count', 'failed_count', 'captured_amount_minor', 'refunded_amount_minor',
            'disputed_amount_minor', 'net_amount_minor', 'fee_minor', 'reporting_captured_amount_minor',
            'reporting_refunded_amount_minor', 'reporting_disputed_amount_minor',
        ] %}
        cast(sum({{ measure }}) as bigint) as {{ measure }}{{ ',' if not loop.last }}
        {%- endfor %}
    from {{ relation }}
    group by {{ period_start(period, 'revenue_on') }}, merchant_key, currency, customer_country
{%- endmacro %}


{#-
    The fifth of its group that a row lies in by an ordering, from 1 (first) to 5 (integer): 1 plus five times the share of the
    group that stands before it, rounded down. Rows that are equal in the ordering have the same score, whatever their order.
-#}
{% macro quintile(ordering, members) -%}
    cast(
        1 + {{ integer_quotient(
            '(5 * (rank() over (partition by ' ~ members ~ ' order by ' ~ ordering ~ ') - 1))',
            'count(*) over (partition by ' ~ members ~ ')'
        ) }} as integer
    )
{%- endmacro %}
