-- How many days pass from a payment to the day its money reaches the merchant's bank, by country of the merchant?
-- Days of payments that went out with a payout that was paid: half of them took at most the 50th percentile (nearest
-- rank).
with

payments as (
    select * from {{ ref('fct_payments') }}
),

balance_transactions as (
    select * from {{ ref('fct_balance_transactions') }}
    where type = 'charge'
),

payouts as (
    select * from {{ ref('fct_payouts') }}
    where status = 'paid'
),

merchants as (
    select * from {{ ref('dim_merchant') }}
),

delays as (
    select
        merchants.country,
        balance_transactions.reporting_net_minor,
        payouts.arrival_on - payments.paid_on as delay_days
    from payments
    inner join balance_transactions
        on payments.payment_key = balance_transactions.payment_key
    inner join payouts
        on balance_transactions.payout_key = payouts.payout_key
    inner join merchants
        on payments.merchant_key = merchants.merchant_key
),

final as (
    select
        country,
        count(*) as payment_count,
        sum(reporting_net_minor) as net_usd_minor,
        min(delay_days) as fewest_days,
        {%- for percent in [50, 90] %}
            percentile_disc(0.{{ percent }}) within group (order by delay_days) as p{{ percent }}_days,
        {%- endfor %}
        max(delay_days) as most_days
    from delays
    group by country
)

select * from final
order by country
