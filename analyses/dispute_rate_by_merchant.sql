-- Which merchants gather disputes, and how long after the payment do they come?
-- Rate over captured payments, as card schemes count it; only merchants with at least one dispute. An inquiry
-- is none.
with

payments as (
    select * from {{ ref('fct_payments') }}
),

disputes as (
    select * from {{ ref('fct_disputes') }}
    where not is_inquiry
),

merchants as (
    select * from {{ ref('dim_merchant') }}
),

captured as (
    select
        merchant_key,
        count(*) as captured_count
    from payments
    where captured_amount_minor > 0
    group by merchant_key
),

disputed as (
    select
        merchant_key,
        count(*) as dispute_count,
        sum(case when reason = 'fraudulent' then 1 else 0 end) as fraudulent_count,
        sum(reporting_amount_minor) as disputed_usd_minor,
        sum(days_from_payment) as days_from_payment,
        count(days_from_payment) as dated_count
    from disputes
    group by merchant_key
),

final as (
    select
        merchants.merchant_id,
        merchants.business_name,
        merchants.vertical,
        disputed.dispute_count,
        disputed.fraudulent_count,
        disputed.disputed_usd_minor,
        {{ divide_half_even('10 * disputed.days_from_payment', 'nullif(disputed.dated_count, 0)') }}
            as mean_tenths_of_days_from_payment,
        {{ basis_points('disputed.dispute_count', 'captured.captured_count') }} as disputed_basis_points
    from disputed
    inner join captured
        on disputed.merchant_key = captured.merchant_key
    inner join merchants
        on disputed.merchant_key = merchants.merchant_key
)

select * from final
order by disputed_basis_points desc, merchant_id asc
