with

disputes as (
    select * from {{ ref('stg_oltp__disputes') }}
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

-- A dispute counts at the rate of its payment; of a payment that has not landed there is no rate.
final as (
    select
        {{ surrogate_key(['disputes.merchant_id', 'disputes.dispute_id']) }} as dispute_key,
        disputes.dispute_id,
        payments.payment_key,
        disputes.charge_id as payment_id,
        {{ surrogate_key(['disputes.merchant_id']) }} as merchant_key,
        disputes.merchant_id,
        coalesce(payments.customer_key, {{ unknown_key() }}) as customer_key,
        payments.customer_country,
        disputes.currency,
        disputes.status,
        disputes.reason,
        disputes.status in (
            'warning_needs_response', 'warning_under_review', 'warning_closed', 'prevented'
        ) as is_inquiry,
        disputes.amount_minor,
        {{ minor_to_major('disputes.amount_minor', 'currencies.exponent') }} as amount,
        disputes.fee_minor,
        payments.rate_to_reporting,
        {{ convert_minor(
            'disputes.amount_minor', 'currencies.exponent', 'payments.rate_to_reporting', 'reporting.exponent'
        ) }} as reporting_amount_minor,
        disputes.created_at as opened_at,
        {{ utc_date('disputes.created_at') }} as opened_on,
        disputes.evidence_due_at,
        disputes.closed_at,
        payments.paid_at,
        disputes._batch_id
    from disputes
    cross join reporting
    inner join currencies
        on disputes.currency = currencies.currency
    left join payments
        on
            disputes.merchant_id = payments.merchant_id
            and disputes.charge_id = payments.payment_id
)

select * from final
