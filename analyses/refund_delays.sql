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
        coalesce(refunds.reason, 'unknown') as reason,
        refunds.reporting_amount_minor,
        {{ seconds_between('payments.paid_at', 'refunds.refunded_at') }} as delay_seconds
    from refunds
    inner join payments
        on refunds.payment_key = payments.payment_key
),

final as (
    select
        reason,
        count(*) as refund_count,
        sum(reporting_amount_minor) as refunded_usd_minor,
        {%- for percent in [50, 90, 99] %}
            percentile_disc(0.{{ percent }}) within group (order by delay_seconds) as p{{ percent }}_seconds,
        {%- endfor %}
        max(delay_seconds) as longest_seconds
    from delays
    group by reason
)

select * from final
order by refund_count desc, reason asc
