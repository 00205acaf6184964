-- What aggregates of customers and of requests add up to is what their facts hold: nothing is lost by a join, and
-- nothing counts twice. Facts of no known customer, and of those who were deleted, are in no row of a customer.
-- Returns the measures that differ.
with

customers as (
    select customer_key from {{ ref('dim_customer') }}
    where
        customer_id is not null
        and not is_deleted
),

customers_in_full as (
    select * from {{ ref('agg_customer_360') }}
),

reliability as (
    select * from {{ ref('agg_api_reliability_daily') }}
),

facts as (
    {%- for measure, fact, value in [
        ['payment_count', 'fct_payments', '1'],
        ['reporting_captured_amount_minor', 'fct_payments', 'reporting_captured_amount_minor'],
        ['session_count', 'fct_sessions', '1'],
        ['feedback_count', 'fct_feedback', '1'],
    ] %}
        select
            '{{ measure }}' as measure,
            coalesce(sum({{ value }}), 0) as fact_total,
            (select coalesce(sum(customers_in_full.{{ measure }}), 0) from customers_in_full) as aggregate_total
        from {{ ref(fact) }}
        where customer_key in (select customers.customer_key from customers)

        union all
    {% endfor %}
    select
        'request_count' as measure,
        count(*) as fact_total,
        (select coalesce(sum(reliability.request_count), 0) from reliability) as aggregate_total
    from {{ ref('fct_api_requests') }}

    union all

    select
        'customers' as measure,
        count(*) as fact_total,
        (select count(*) from customers_in_full) as aggregate_total
    from customers
),

final as (
    select * from facts
    where fact_total <> aggregate_total
)

select * from final
