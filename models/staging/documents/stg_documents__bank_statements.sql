with

source as (
    select * from {{ source('documents', 'bank_statements') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        statement_page_id,
        statement_id,
        account_token,

        -- properties
        page,
        page_count,
        currency,
        entry_count,
        sha256,
        schema_version,

        -- amounts
        opening_balance_minor,
        closing_balance_minor,

        -- flags
        _op = 'd' as is_deleted,

        -- times
        cast(period_start_on as date) as period_start_on,
        cast(period_end_on as date) as period_end_on,
        received_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
