-- On how few merchants does our volume rest?
-- A: those that bring the first 80 percent of captured revenue, B: the next 15, C: the rest. A merchant that crosses
-- a border belongs to the class above it.
with

payments as (
    select * from {{ ref('fct_payments') }}
    where reporting_captured_amount_minor > 0
),

merchants as (
    select * from {{ ref('dim_merchant') }}
),

totals as (
    select
        merchant_key,
        count(*) as captured_count,
        sum(reporting_captured_amount_minor) as reporting_captured_minor
    from payments
    group by merchant_key
),

ranked as (
    select
        merchants.merchant_id,
        merchants.business_name,
        totals.captured_count,
        totals.reporting_captured_minor,
        row_number() over (
            order by totals.reporting_captured_minor desc, merchants.merchant_id asc
        ) as place,
        sum(totals.reporting_captured_minor) over (
            order by totals.reporting_captured_minor desc, merchants.merchant_id asc
            rows between unbounded preceding and current row
        ) as reporting_running_minor,
        sum(totals.reporting_captured_minor) over () as reporting_all_minor
    from totals
    inner join merchants
        on totals.merchant_key = merchants.merchant_key
),

final as (
    select
        place,
        merchant_id,
        business_name,
        captured_count,
        reporting_captured_minor as captured_usd_minor,
        {{ basis_points('reporting_captured_minor', 'reporting_all_minor') }} as share_basis_points,
        {{ basis_points('reporting_running_minor', 'reporting_all_minor') }} as running_share_basis_points,
        case
            when 100 * (reporting_running_minor - reporting_captured_minor) < 80 * reporting_all_minor then 'A'
            when 100 * (reporting_running_minor - reporting_captured_minor) < 95 * reporting_all_minor then 'B'
            else 'C'
        end as revenue_class
    from ranked
)

select * from final
order by place
