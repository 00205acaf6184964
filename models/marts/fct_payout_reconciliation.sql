with

reconciled as (
    select * from {{ ref('int_payouts_reconciled') }}
),

merchant_versions as (
    select * from {{ ref('dim_merchant_version') }}
),

facts as (
    select
        -- keys
        {{ surrogate_key(['merchant_id', 'payout_id', 'bank_entry_id']) }} as payout_reconciliation_key,
        case
            when payout_id is not null then {{ surrogate_key(['merchant_id', 'payout_id']) }}
        end as payout_key,
        {{ surrogate_key(['merchant_id']) }} as merchant_key,
        merchant_id,
        payout_id,
        bank_entry_id,

        -- properties
        currency,
        outcome,
        payout_status,
        bank_entry_count,
        outcome = 'missing_at_bank' and is_beyond_statements as is_awaited,

        -- times
        coalesce(booked_on, expected_on) as reconciled_on,
        expected_on,
        booked_on,
        cast(booked_on - expected_on as integer) as days_late,

        -- money
        payout_amount_minor,
        bank_amount_minor,
        bank_amount_minor - payout_amount_minor as difference_minor,
        returned_minor,

        -- lineage
        _batch_id
    from reconciled
),

final as (
    {{ with_versions('facts', "cast(facts.reconciled_on as timestamp) at time zone 'UTC'", ['merchant']) }}
)

select * from final
