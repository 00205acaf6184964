-- The lifetime value of all customers is what was captured from them, less refunds and lost disputes: each fact once.
-- Returns the totals where they differ.
with

customers as (
    select customer_key from {{ ref('dim_customer') }}
    where
        customer_id is not null
        and not is_deleted
),

movements as (
    select
        customer_key,
        reporting_captured_amount_minor
        - case when source = 'files' and refunded_amount_minor > 0 then reporting_amount_minor else 0 end
            as reporting_value_minor
    from {{ ref('fct_payments') }}

    union all

    select
        customer_key,
        -reporting_amount_minor as reporting_value_minor
    from {{ ref('fct_refunds') }}
    where status not in ('failed', 'canceled')

    union all

    select
        customer_key,
        -reporting_amount_minor as reporting_value_minor
    from {{ ref('fct_disputes') }}
    where status = 'lost'
),

facts as (
    select coalesce(sum(reporting_value_minor), 0) as reporting_value_minor
    from movements
    where customer_key in (select customers.customer_key from customers)
),

aggregates as (
    select coalesce(sum(reporting_lifetime_value_minor), 0) as reporting_value_minor
    from {{ ref('agg_customer_360') }}
),

final as (
    select
        facts.reporting_value_minor as fact_total,
        aggregates.reporting_value_minor as aggregate_total
    from facts
    cross join aggregates
    where facts.reporting_value_minor <> aggregates.reporting_value_minor
)

select * from final
