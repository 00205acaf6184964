with

balance_transactions as (
    select * from {{ ref('stg_oltp__balance_transactions') }}
    where not is_deleted
),

fees as (
    select * from {{ ref('stg_oltp__balance_transaction_fees') }}
    where not is_deleted
),

paid_out as (
    select * from {{ ref('stg_oltp__payout_balance_transactions') }}
    where not is_deleted
),

payments as (
    select * from {{ ref('int_payments_converted') }}
    where source = 'oltp'
),

currencies as (
    select * from {{ ref('currencies') }}
),

rates as (
    select * from {{ ref('int_exchange_rates_daily') }}
),

fees_by_type as (
    select
        merchant_id,
        balance_transaction_id,
        currency,
        cast(sum(case when type = 'processing_fee' then amount_minor else 0 end) as bigint) as processing_fee_minor,
        cast(sum(case when type = 'application_fee' then amount_minor else 0 end) as bigint) as application_fee_minor,
        cast(sum(case when type = 'dispute_fee' then amount_minor else 0 end) as bigint) as dispute_fee_minor,
        cast(sum(case when type = 'conversion_fee' then amount_minor else 0 end) as bigint) as conversion_fee_minor
    from fees
    group by merchant_id, balance_transaction_id, currency
),

-- Only a charge is a payment; an application fee stands at another merchant than the charge that it is of.
joined as (
    select
        {{ surrogate_key([
            'balance_transactions.merchant_id', 'balance_transactions.balance_transaction_id'
        ]) }} as balance_transaction_key,
        balance_transactions.*,
        payments.payment_key,
        paid_out.payout_id,
        case
            when paid_out.payout_id is not null
                then {{ surrogate_key(['paid_out.merchant_id', 'paid_out.payout_id']) }}
        end as payout_key,
        coalesce(fees_by_type.processing_fee_minor, 0) as processing_fee_minor,
        coalesce(fees_by_type.application_fee_minor, 0) as application_fee_minor,
        coalesce(fees_by_type.dispute_fee_minor, 0) as dispute_fee_minor,
        coalesce(fees_by_type.conversion_fee_minor, 0) as conversion_fee_minor,
        {{ utc_date('balance_transactions.created_at') }} as created_on,
        {{ utc_date('balance_transactions.available_at') }} as available_on
    from balance_transactions
    left join fees_by_type
        on
            balance_transactions.merchant_id = fees_by_type.merchant_id
            and balance_transactions.balance_transaction_id = fees_by_type.balance_transaction_id
            and balance_transactions.currency = fees_by_type.currency
    left join paid_out
        on
            balance_transactions.merchant_id = paid_out.merchant_id
            and balance_transactions.balance_transaction_id = paid_out.balance_transaction_id
    left join payments
        on
            balance_transactions.type = 'charge'
            and balance_transactions.merchant_id = payments.merchant_id
            and balance_transactions.source_id = payments.payment_id
),

rated as (
    {{ with_rate_of_day('joined', 'created_on') }}
),

converted as (
    select
        rated.*,
        {{ reporting_minor('amount_minor') }} as reporting_amount_minor,
        {{ reporting_minor('fee_minor') }} as reporting_fee_minor
    from rated
),

final as (
    select
        converted.*,
        converted.reporting_amount_minor - converted.reporting_fee_minor as reporting_net_minor
    from converted
)

select * from final
