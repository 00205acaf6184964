-- Every paid payout and every booked entry of the bank stands in one row of the reconciliation, and money adds up to
-- the minor unit: payouts as staged, and the movement of all balances as the bank states them.
-- Returns the currencies where a number or a sum differs.
with

payouts as (
    select * from {{ ref('stg_oltp__payouts') }}
    where
        not is_deleted
        and status = 'paid'
),

entries as (
    select * from {{ ref('stg_documents__bank_statement_entries') }}
    where
        not is_deleted
        and status = 'booked'
),

statements as (
    select * from {{ ref('stg_documents__bank_statements') }}
    where
        not is_deleted
        and page = 1
),

reconciliation as (
    select * from {{ ref('fct_payout_reconciliation') }}
),

sums as (
    select
        currency,
        1 as staged_payouts,
        amount_minor as staged_payout_minor,
        0 as staged_entries,
        0 as staged_bank_minor,
        0 as payouts,
        0 as payout_minor,
        0 as entries,
        0 as bank_minor
    from payouts

    union all

    select
        currency,
        0 as staged_payouts,
        0 as staged_payout_minor,
        1 as staged_entries,
        0 as staged_bank_minor,
        0 as payouts,
        0 as payout_minor,
        0 as entries,
        0 as bank_minor
    from entries

    union all

    select
        currency,
        0 as staged_payouts,
        0 as staged_payout_minor,
        0 as staged_entries,
        opening_balance_minor - closing_balance_minor as staged_bank_minor,
        0 as payouts,
        0 as payout_minor,
        0 as entries,
        0 as bank_minor
    from statements

    union all

    select
        currency,
        0 as staged_payouts,
        0 as staged_payout_minor,
        0 as staged_entries,
        0 as staged_bank_minor,
        case when payout_status = 'paid' then 1 else 0 end as payouts,
        case when payout_status = 'paid' then payout_amount_minor else 0 end as payout_minor,
        bank_entry_count as entries,
        bank_amount_minor as bank_minor
    from reconciliation
),

by_currency as (
    select
        currency,
        sum(staged_payouts) as staged_payouts,
        sum(staged_payout_minor) as staged_payout_minor,
        sum(staged_entries) as staged_entries,
        sum(staged_bank_minor) as staged_bank_minor,
        sum(payouts) as payouts,
        sum(payout_minor) as payout_minor,
        sum(entries) as entries,
        sum(bank_minor) as bank_minor
    from sums
    group by currency
),

final as (
    select * from by_currency
    where
        staged_payouts <> payouts
        or staged_payout_minor <> payout_minor
        or staged_entries <> entries
        or staged_bank_minor <> bank_minor
)

select * from final
