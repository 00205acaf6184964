-- Which segments of customers bring the money, and which cost us refunds and disputes?
-- Segments by how lately, how often and how much a customer paid, each in fifths of the customers of its merchant.
-- Values are of their whole lifetime: what was captured less what went back.
with

customers as (
    select * from {{ ref('agg_customer_360') }}
),

totals as (
    select
        rfm_segment,
        count(*) as customer_count,
        sum(paid_count) as paid_count,
        sum(refund_count) as refund_count,
        sum(dispute_count) as dispute_count,
        sum(reporting_lifetime_value_minor) as reporting_value_minor
    from customers
    group by rfm_segment
),

shares as (
    select
        totals.*,
        sum(totals.customer_count) over () as all_customer_count,
        sum(totals.reporting_value_minor) over () as reporting_all_value_minor
    from totals
),

final as (
    select
        rfm_segment,
        customer_count,
        {{ basis_points('customer_count', 'all_customer_count') }} as customers_basis_points,
        paid_count,
        refund_count,
        dispute_count,
        reporting_value_minor as value_usd_minor,
        {{ basis_points('reporting_value_minor', 'greatest(reporting_all_value_minor, 0)') }} as value_basis_points,
        {{ divide_half_even('reporting_value_minor', 'customer_count') }} as value_per_customer_usd_minor
    from shares
)

select * from final
order by value_usd_minor desc, rfm_segment asc
