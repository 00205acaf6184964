-- Which merchants come near the ratio of chargebacks at which card schemes act?
-- Disputes opened in a month over payments captured in it; inquiries are none. Schemes act from 90 basis points and
-- some 100 disputes a month: the count stands beside the ratio, since one dispute of a small merchant is a high
-- ratio.
with

payments as (
    select * from {{ ref('fct_payments') }}
    where captured_amount_minor > 0
),

disputes as (
    select * from {{ ref('fct_disputes') }}
    where not is_inquiry
),

merchants as (
    select * from {{ ref('dim_merchant') }}
),

dates as (
    select * from {{ ref('dim_date') }}
),

captured as (
    select
        payments.merchant_key,
        dates.month_start_on,
        count(*) as captured_count
    from payments
    inner join dates
        on payments.paid_on = dates.date_day
    group by payments.merchant_key, dates.month_start_on
),

disputed as (
    select
        disputes.merchant_key,
        dates.month_start_on,
        count(*) as dispute_count,
        sum(disputes.reporting_amount_minor) as disputed_usd_minor
    from disputes
    inner join dates
        on disputes.opened_on = dates.date_day
    group by disputes.merchant_key, dates.month_start_on
),

rated as (
    select
        disputed.merchant_key,
        disputed.month_start_on,
        disputed.dispute_count,
        coalesce(captured.captured_count, 0) as captured_count,
        disputed.disputed_usd_minor,
        {{ basis_points('disputed.dispute_count', 'captured.captured_count') }} as ratio_basis_points
    from disputed
    left join captured
        on
            disputed.merchant_key = captured.merchant_key
            and disputed.month_start_on = captured.month_start_on
),

final as (
    select
        rated.month_start_on,
        merchants.merchant_id,
        merchants.business_name,
        rated.dispute_count,
        rated.captured_count,
        rated.disputed_usd_minor,
        rated.ratio_basis_points,
        case
            when rated.ratio_basis_points is null then 'no sales'
            when rated.ratio_basis_points >= 90 then 'over'
            when rated.ratio_basis_points >= 65 then 'near'
            else 'within'
        end as standing
    from rated
    inner join merchants
        on rated.merchant_key = merchants.merchant_key
)

select * from final
order by month_start_on, merchant_id
