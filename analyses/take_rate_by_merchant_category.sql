-- How much of what merchants take do we keep, by category of merchant and currency?
-- Processing fees over captured payments, as charged when the payment was made: a refund gives no fee back.
with

payments as (
    select * from {{ ref('fct_payments') }}
    where captured_amount_minor > 0
),

merchants as (
    select * from {{ ref('dim_merchant') }}
),

categories as (
    select * from {{ ref('dim_merchant_category') }}
),

totals as (
    select
        merchants.mcc,
        payments.currency,
        count(distinct payments.merchant_key) as merchant_count,
        count(*) as captured_count,
        sum(payments.captured_amount_minor) as captured_amount_minor,
        sum(payments.fee_minor) as fee_minor
    from payments
    inner join merchants
        on payments.merchant_key = merchants.merchant_key
    group by merchants.mcc, payments.currency
),

final as (
    select
        coalesce(categories.vertical, 'unknown') as vertical,
        totals.mcc,
        categories.category_name,
        totals.currency,
        totals.merchant_count,
        totals.captured_count,
        totals.captured_amount_minor,
        totals.fee_minor,
        {{ basis_points('totals.fee_minor', 'totals.captured_amount_minor') }} as take_rate_basis_points
    from totals
    left join categories
        on totals.mcc = categories.mcc
)

select * from final
order by vertical, mcc, currency
