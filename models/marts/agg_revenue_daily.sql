with

payments as (
    select * from {{ ref('int_payments_converted') }}
),

refunds as (
    select * from {{ ref('int_refunds_converted') }}
    where status not in ('failed', 'canceled')
),

disputes as (
    select * from {{ ref('int_disputes_converted') }}
    where
        status <> 'won'
        and not is_inquiry
),

-- A payment counts on the day it was made, a refund on the day it was given, a dispute on the day it was opened, all in
-- the country of the customer who paid. What a file says was refunded has no day of its own and counts on that of the
-- payment.
movements as (
    select
        paid_on as revenue_on,
        merchant_key,
        currency,
        coalesce(customer_country, 'ZZ') as customer_country,
        1 as payment_count,
        case when status not in ('failed', 'pending') then 1 else 0 end as captured_count,
        case when status = 'failed' then 1 else 0 end as failed_count,
        captured_amount_minor,
        case when source = 'files' then refunded_amount_minor else 0 end as refunded_amount_minor,
        0 as disputed_amount_minor,
        fee_minor,
        rate_to_reporting,
        reporting_captured_amount_minor,
        case
            when source = 'files' and refunded_amount_minor > 0 then reporting_amount_minor else 0
        end as reporting_refunded_amount_minor,
        0 as reporting_disputed_amount_minor
    from payments

    union all

    select
        refunded_on as revenue_on,
        merchant_key,
        currency,
        coalesce(customer_country, 'ZZ') as customer_country,
        0 as payment_count,
        0 as captured_count,
        0 as failed_count,
        0 as captured_amount_minor,
        amount_minor as refunded_amount_minor,
        0 as disputed_amount_minor,
        0 as fee_minor,
        rate_to_reporting,
        0 as reporting_captured_amount_minor,
        reporting_amount_minor as reporting_refunded_amount_minor,
        0 as reporting_disputed_amount_minor
    from refunds

    union all

    select
        opened_on as revenue_on,
        merchant_key,
        currency,
        coalesce(customer_country, 'ZZ') as customer_country,
        0 as payment_count,
        0 as captured_count,
        0 as failed_count,
        0 as captured_amount_minor,
        0 as refunded_amount_minor,
        amount_minor as disputed_amount_minor,
        fee_minor,
        rate_to_reporting,
        0 as reporting_captured_amount_minor,
        0 as reporting_refunded_amount_minor,
        reporting_amount_minor as reporting_disputed_amount_minor
    from disputes
),

final as (
    select
        {{ surrogate_key(['revenue_on', 'merchant_key', 'currency', 'customer_country']) }} as revenue_daily_key,
        revenue_on,
        merchant_key,
        currency,
        customer_country,
        cast(sum(payment_count) as bigint) as payment_count,
        cast(sum(captured_count) as bigint) as captured_count,
        cast(sum(failed_count) as bigint) as failed_count,
        cast(sum(captured_amount_minor) as bigint) as captured_amount_minor,
        cast(sum(refunded_amount_minor) as bigint) as refunded_amount_minor,
        cast(sum(disputed_amount_minor) as bigint) as disputed_amount_minor,
        cast(sum(captured_amount_minor - refunded_amount_minor - disputed_amount_minor) as bigint) as net_amount_minor,
        cast(sum(fee_minor) as bigint) as fee_minor,
        case
            when max(rate_to_reporting) is not null
                then cast(coalesce(sum(reporting_captured_amount_minor), 0) as bigint)
        end as reporting_captured_amount_minor,
        case
            when max(rate_to_reporting) is not null
                then cast(coalesce(sum(reporting_refunded_amount_minor), 0) as bigint)
        end as reporting_refunded_amount_minor,
        case
            when max(rate_to_reporting) is not null
                then cast(coalesce(sum(reporting_disputed_amount_minor), 0) as bigint)
        end as reporting_disputed_amount_minor
    from movements
    group by revenue_on, merchant_key, currency, customer_country
)

select * from final
