with

payouts as (
    select * from {{ ref('stg_oltp__payouts') }}
    where not is_deleted
),

entries as (
    select * from {{ ref('stg_documents__bank_statement_entries') }}
    where
        not is_deleted
        and status = 'booked'
),

statements as (
    select * from {{ ref('stg_documents__bank_statements') }}
    where not is_deleted
),

-- The bank names a payout by its id alone: one that two merchants share explains nothing.
owners as (
    select
        payout_id,
        currency,
        min(merchant_id) as merchant_id
    from payouts
    group by payout_id, currency
    having count(*) = 1
),

owned as (
    select
        entries.bank_entry_id,
        entries.currency,
        entries.direction,
        entries.booked_on,
        owners.merchant_id,
        owners.payout_id,
        case when entries.direction = 'debit' then entries.amount_minor else -entries.amount_minor end as left_minor,
        entries._batch_id
    from entries
    left join owners
        on
            entries.payout_id = owners.payout_id
            and entries.currency = owners.currency
),

by_payout as (
    select
        merchant_id,
        payout_id,
        currency,
        cast(count(*) as integer) as bank_entry_count,
        cast(sum(left_minor) as bigint) as bank_amount_minor,
        cast(sum(case when direction = 'credit' then -left_minor else 0 end) as bigint) as returned_minor,
        min(case when direction = 'debit' then booked_on end) as sent_on,
        max(booked_on) as booked_on
    from owned
    where payout_id is not null
    group by merchant_id, payout_id, currency
),

told as (
    select
        currency,
        max(period_end_on) as told_until
    from statements
    group by currency
),

of_payouts as (
    select
        payouts.merchant_id,
        payouts.payout_id,
        cast(null as text) as bank_entry_id,
        payouts.currency,
        payouts.status as payout_status,
        case when payouts.status in ('failed', 'canceled') then 0 else payouts.amount_minor end as payout_amount_minor,
        coalesce(by_payout.bank_amount_minor, 0) as bank_amount_minor,
        coalesce(by_payout.returned_minor, 0) as returned_minor,
        coalesce(by_payout.bank_entry_count, 0) as bank_entry_count,
        payouts.arrival_date as expected_on,
        coalesce(by_payout.sent_on, by_payout.booked_on) as booked_on,
        coalesce(told.told_until, cast('0001-01-01' as date)) < payouts.arrival_date as is_beyond_statements,
        payouts._batch_id
    from payouts
    left join by_payout
        on
            payouts.merchant_id = by_payout.merchant_id
            and payouts.payout_id = by_payout.payout_id
            and payouts.currency = by_payout.currency
    left join told
        on payouts.currency = told.currency
    where
        payouts.status = 'paid'
        or by_payout.payout_id is not null
),

judged as (
    select
        *,
        case
            when bank_entry_count = 0 then 'missing_at_bank'
            when returned_minor > 0 and bank_amount_minor = 0 then 'returned'
            when bank_amount_minor <> payout_amount_minor then 'different_amount'
            when booked_on > expected_on then 'late'
            else 'matched'
        end as outcome
    from of_payouts
),

unexplained as (
    select
        cast(null as text) as merchant_id,
        cast(null as text) as payout_id,
        bank_entry_id,
        currency,
        cast(null as text) as payout_status,
        cast(0 as bigint) as payout_amount_minor,
        left_minor as bank_amount_minor,
        case when direction = 'credit' then -left_minor else 0 end as returned_minor,
        1 as bank_entry_count,
        cast(null as date) as expected_on,
        booked_on,
        false as is_beyond_statements,
        _batch_id,
        'unexplained' as outcome
    from owned
    where payout_id is null
),

final as (
    select * from judged
    union all
    select * from unexplained
)

select * from final
