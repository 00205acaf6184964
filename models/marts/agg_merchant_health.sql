with

merchants as (
    select * from {{ ref('dim_merchant') }}
),

payments as (
    select * from {{ ref('fct_payments') }}
),

refunds as (
    select * from {{ ref('fct_refunds') }}
    where status not in ('failed', 'canceled')
),

disputes as (
    select * from {{ ref('fct_disputes') }}
    where not is_inquiry
),

clock as (
    select {{ utc_date(as_of()) }} as today
),

-- The as-of day and the 29 before it, and the 30 before those.
payments_by_merchant as (
    select
        payments.merchant_key,
        sum(case when payments.paid_on > clock.today - 30 then 1 else 0 end) as payment_count_30d,
        sum(
            case when payments.paid_on > clock.today - 30 and payments.status = 'failed' then 1 else 0 end
        ) as failed_count_30d,
        sum(
            case when payments.paid_on > clock.today - 30 and payments.captured_amount_minor > 0 then 1 else 0 end
        ) as captured_count_30d,
        sum(
            case
                when
                    payments.paid_on > clock.today - 30
                    and payments.captured_amount_minor > 0
                    and payments.is_fraud
                    then 1
                else 0
            end
        ) as fraud_count_30d,
        sum(
            case when payments.paid_on > clock.today - 30 then payments.reporting_captured_amount_minor end
        ) as reporting_captured_30d_minor,
        sum(
            case
                when payments.paid_on between clock.today - 59 and clock.today - 30
                    then payments.reporting_captured_amount_minor
            end
        ) as reporting_captured_previous_30d_minor,
        max(case when payments.captured_amount_minor > 0 then payments.paid_on end) as last_captured_on
    from payments
    cross join clock
    where payments.paid_on <= clock.today
    group by payments.merchant_key
),

refunds_by_merchant as (
    select
        refunds.merchant_key,
        count(*) as refund_count_30d
    from refunds
    cross join clock
    where refunds.refunded_on between clock.today - 29 and clock.today
    group by refunds.merchant_key
),

disputes_by_merchant as (
    select
        disputes.merchant_key,
        sum(
            case when disputes.opened_on between clock.today - 29 and clock.today then 1 else 0 end
        ) as dispute_count_30d,
        sum(case when disputes.is_open then 1 else 0 end) as open_dispute_count
    from disputes
    cross join clock
    group by disputes.merchant_key
),

gathered as (
    select
        merchants.merchant_key,
        merchants.merchant_id,
        coalesce(payments_by_merchant.payment_count_30d, 0) as payment_count_30d,
        coalesce(payments_by_merchant.failed_count_30d, 0) as failed_count_30d,
        coalesce(payments_by_merchant.captured_count_30d, 0) as captured_count_30d,
        coalesce(payments_by_merchant.fraud_count_30d, 0) as fraud_count_30d,
        coalesce(refunds_by_merchant.refund_count_30d, 0) as refund_count_30d,
        coalesce(disputes_by_merchant.dispute_count_30d, 0) as dispute_count_30d,
        coalesce(disputes_by_merchant.open_dispute_count, 0) as open_dispute_count,
        coalesce(payments_by_merchant.reporting_captured_30d_minor, 0) as reporting_captured_30d_minor,
        coalesce(
            payments_by_merchant.reporting_captured_previous_30d_minor, 0
        ) as reporting_captured_previous_30d_minor,
        clock.today - payments_by_merchant.last_captured_on as days_since_last_capture
    from merchants
    cross join clock
    left join payments_by_merchant
        on merchants.merchant_key = payments_by_merchant.merchant_key
    left join refunds_by_merchant
        on merchants.merchant_key = refunds_by_merchant.merchant_key
    left join disputes_by_merchant
        on merchants.merchant_key = disputes_by_merchant.merchant_key
),

rated as (
    select
        *,
        {{ basis_points(
            'reporting_captured_30d_minor - reporting_captured_previous_30d_minor',
            'reporting_captured_previous_30d_minor'
        ) }} as growth_basis_points,
        {{ basis_points('failed_count_30d', 'payment_count_30d') }} as decline_rate_basis_points,
        {{ basis_points('refund_count_30d', 'captured_count_30d') }} as refund_rate_basis_points,
        {{ basis_points('dispute_count_30d', 'captured_count_30d') }} as dispute_rate_basis_points,
        {{ basis_points('fraud_count_30d', 'captured_count_30d') }} as fraud_rate_basis_points
    from gathered
),

final as (
    select
        -- keys
        merchant_key,
        merchant_id,

        -- label
        case
            when captured_count_30d = 0 then 'inactive'
            when dispute_rate_basis_points >= 100 or fraud_rate_basis_points >= 100 then 'critical'
            when decline_rate_basis_points >= 5000 then 'critical'
            when dispute_rate_basis_points >= 50 or fraud_rate_basis_points >= 50 then 'watch'
            when decline_rate_basis_points >= 2500 or refund_rate_basis_points >= 1000 then 'watch'
            when growth_basis_points <= -5000 then 'watch'
            else 'healthy'
        end as health,

        -- counts
        cast(payment_count_30d as bigint) as payment_count_30d,
        cast(failed_count_30d as bigint) as failed_count_30d,
        cast(captured_count_30d as bigint) as captured_count_30d,
        cast(fraud_count_30d as bigint) as fraud_count_30d,
        cast(refund_count_30d as bigint) as refund_count_30d,
        cast(dispute_count_30d as bigint) as dispute_count_30d,
        cast(open_dispute_count as bigint) as open_dispute_count,
        cast(days_since_last_capture as integer) as days_since_last_capture,

        -- money
        cast(reporting_captured_30d_minor as bigint) as reporting_captured_30d_minor,
        cast(reporting_captured_previous_30d_minor as bigint) as reporting_captured_previous_30d_minor,

        -- rates
        growth_basis_points,
        decline_rate_basis_points,
        refund_rate_basis_points,
        dispute_rate_basis_points,
        fraud_rate_basis_points
    from rated
)

select * from final
