with

subscriptions as (
    select * from {{ ref('int_mrr_subscriptions') }}
),

currencies as (
    select * from {{ ref('currencies') }}
),

rates as (
    select * from {{ ref('int_exchange_rates_daily') }}
),

-- All that a customer pays in a currency counts together, so that another plan is no churn.
measured as (
    select
        merchant_id,
        customer_id,
        currency,
        month_start_on,
        cast(sum(mrr_minor) as bigint) as mrr_minor
    from subscriptions
    group by merchant_id, customer_id, currency, month_start_on
),

customers as (
    select
        merchant_id,
        customer_id,
        currency,
        min(month_start_on) as first_month_start_on
    from measured
    where mrr_minor > 0
    group by merchant_id, customer_id, currency
),

months as (
    select * from {{ ref('int_mrr_months') }}
),

followed as (
    select
        customers.merchant_id,
        customers.customer_id,
        customers.currency,
        customers.first_month_start_on,
        months.month_start_on,
        {{ utc_date('months.measured_at') }} as measured_on,
        coalesce(measured.mrr_minor, 0) as mrr_after_minor
    from customers
    inner join months
        on customers.first_month_start_on <= months.month_start_on
    left join measured
        on
            customers.merchant_id = measured.merchant_id
            and customers.customer_id = measured.customer_id
            and customers.currency = measured.currency
            and months.month_start_on = measured.month_start_on
),

compared as (
    select
        followed.*,
        coalesce(
            lag(followed.mrr_after_minor) over (
                partition by followed.merchant_id, followed.customer_id, followed.currency
                order by followed.month_start_on
            ),
            0
        ) as mrr_before_minor
    from followed
),

judged as (
    select
        *,
        case
            when mrr_after_minor = mrr_before_minor then null
            when mrr_before_minor = 0 and month_start_on = first_month_start_on then 'new'
            when mrr_before_minor = 0 then 'reactivation'
            when mrr_after_minor = 0 then 'churn'
            when mrr_after_minor > mrr_before_minor then 'expansion'
            else 'contraction'
        end as movement
    from compared
),

rated as (
    {{ with_rate_of_day('judged', 'measured_on') }}
),

converted as (
    select
        *,
        {{ reporting_minor('mrr_before_minor') }} as reporting_mrr_before_minor,
        {{ reporting_minor('mrr_after_minor') }} as reporting_mrr_after_minor
    from rated
),

final as (
    select
        *,
        mrr_after_minor - mrr_before_minor as change_minor,
        reporting_mrr_after_minor - reporting_mrr_before_minor as reporting_change_minor
    from converted
)

select * from final
