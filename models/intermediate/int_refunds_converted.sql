with

refunds as (
    select * from {{ ref('stg_oltp__refunds') }}
    where not is_deleted
),

payments as (
    select * from {{ ref('int_payments_converted') }}
    where source = 'oltp'
),

currencies as (
    select * from {{ ref('currencies') }}
),

reporting as (
    select exponent
    from currencies
    where currency = 'USD'
),

-- A refund goes back at the rate of its payment; of a payment that has not landed there is no rate.
final as (
    select
        {{ surrogate_key(['refunds.merchant_id', 'refunds.refund_id']) }} as refund_key,
        refunds.refund_id,
        payments.payment_key,
        refunds.charge_id as payment_id,
        {{ surrogate_key(['refunds.merchant_id']) }} as merchant_key,
        refunds.merchant_id,
        coalesce(payments.customer_key, {{ unknown_key() }}) as customer_key,
        payments.customer_country,
        refunds.currency,
        refunds.status,
        refunds.reason,
        refunds.amount_minor,
        {{ minor_to_major('refunds.amount_minor', 'currencies.exponent') }} as amount,
        payments.rate_to_reporting,
        {{ convert_minor(
            'refunds.amount_minor', 'currencies.exponent', 'payments.rate_to_reporting', 'reporting.exponent'
        ) }} as reporting_amount_minor,
        refunds.created_at as refunded_at,
        {{ utc_date('refunds.created_at') }} as refunded_on,
        payments.paid_at,
        refunds._batch_id
    from refunds
    cross join reporting
    inner join currencies
        on refunds.currency = currencies.currency
    left join payments
        on
            refunds.merchant_id = payments.merchant_id
            and refunds.charge_id = payments.payment_id
)

select * from final
