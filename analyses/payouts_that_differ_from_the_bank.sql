-- Which payouts does the bank tell otherwise than we do, and how much money is in them?
-- Everything but what matched, by outcome and currency. Unexplained is what the bank booked and names no payout of
-- ours; a payout that no statement reaches yet is awaited, not missing.
with

reconciliation as (
    select * from {{ ref('fct_payout_reconciliation') }}
    where
        outcome <> 'matched'
        and not is_awaited
),

currencies as (
    select * from {{ ref('dim_currency') }}
),

final as (
    select
        reconciliation.outcome,
        reconciliation.currency,
        currencies.currency_name,
        count(*) as row_count,
        count(distinct reconciliation.merchant_id) as merchant_count,
        sum(reconciliation.payout_amount_minor) as payout_amount_minor,
        sum(reconciliation.bank_amount_minor) as bank_amount_minor,
        sum(reconciliation.difference_minor) as difference_minor,
        max(reconciliation.days_late) as most_days_late
    from reconciliation
    inner join currencies
        on reconciliation.currency = currencies.currency
    group by reconciliation.outcome, reconciliation.currency, currencies.currency_name
)

select * from final
order by outcome, currency
