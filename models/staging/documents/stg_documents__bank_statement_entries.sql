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
        latest.account_token || ':' || latest.statement_id || ':'
        || {{ json_field('unnested.item', 'entry_no') }} as bank_entry_id,
        latest.statement_page_id,
        latest.statement_id,
        latest.account_token,
        {{ json_field('unnested.item', 'entry_no', 'integer') }} as entry_no,
        {{ json_field('unnested.item', 'entry_ref') }} as entry_ref,
        {{ json_field('unnested.item', 'payout_id') }} as payout_id,

        -- properties
        {{ json_field('unnested.item', 'currency') }} as currency,
        {{ json_field('unnested.item', 'direction') }} as direction,
        {{ json_field('unnested.item', 'status') }} as status,
        {{ json_field('unnested.item', 'reason_code') }} as reason_code,

        -- amounts
        {{ json_field('unnested.item', 'amount_minor', 'bigint') }} as amount_minor,

        -- flags
        {{ json_field('unnested.item', 'is_reversal', 'boolean') }} as is_reversal,
        latest._op = 'd' as is_deleted,

        -- times
        {{ json_field('unnested.item', 'booked_on', 'date') }} as booked_on,
        {{ json_field('unnested.item', 'value_on', 'date') }} as value_on,

        -- lineage
        latest._position,
        latest._source_at,
        latest._batch_id,
        latest._sequence
    from latest
    cross join lateral {{ json_items('latest.entries') }} as unnested (item)
)

select * from final
