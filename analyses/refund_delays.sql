-- How long after the payment do merchants give money back, by reason?
-- Half of the refunds of a reason come within the 50th percentile (nearest rank), in seconds from the payment to the
-- refund. Refunds that failed or were canceled, and those of payments that have not landed, are left out.
with

refunds as (
    select * from {{ ref('fct_refunds') }}
    where status not in ('failed', 'canceled')
),

payments as (
    select * from {{ ref('fct_payments') }}
),

delays as (
    select
        refunds.refund_key,
        coalesce(refunds.reason, 'unknown') as reason,
        refunds.reporting_amount_minor,
        {{ seconds_between('payments.paid_at', 'refunds.refunded_at') }} as delay_seconds
    from refunds
    inner join payments
        on refunds.payment_key = payments.payment_key
),

placed as (
    select
        delays.*,
        row_number() over (partition by delays.reason order by delays.delay_seconds, delays.refund_key) as place,
        count(*) over (partition by delays.reason) as reason_count
    from delays
),

final as (
    select
        reason,
        count(*) as refund_count,
        sum(reporting_amount_minor) as refunded_usd_minor,
        {%- for percent in [50, 90, 99] %}
            min(
                case
                    when place = {{ integer_quotient('(' ~ percent ~ ' * reason_count + 99)', '100') }}
                        then delay_seconds
                end
            ) as p{{ percent }}_seconds,
        {%- endfor %}
        max(delay_seconds) as longest_seconds
    from placed
    group by reason
)

select * from final
order by refund_count desc, reason asc
