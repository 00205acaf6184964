-- The parts of fees that staging holds stand in the fact, by merchant, currency and type, and no part stands twice.
-- Returns the parts that differ.
with

staged as (
    select
        merchant_id,
        currency,
        type as fee_type,
        sum(amount_minor) as amount_minor
    from {{ ref('stg_oltp__balance_transaction_fees') }}
    where not is_deleted
    group by merchant_id, currency, type
),

built as (
    {%- for type in ['processing_fee', 'application_fee', 'dispute_fee', 'conversion_fee'] %}
        select
            merchant_id,
            currency,
            '{{ type }}' as fee_type,
            sum({{ type }}_minor) as amount_minor
        from {{ ref('fct_balance_transactions') }}
        group by merchant_id, currency
        having sum({{ type }}_minor) <> 0
        {%- if not loop.last %}

            union all
        {% endif %}
    {%- endfor %}
),

final as (
    select
        coalesce(staged.merchant_id, built.merchant_id) as merchant_id,
        coalesce(staged.currency, built.currency) as currency,
        coalesce(staged.fee_type, built.fee_type) as fee_type,
        staged.amount_minor as staged_amount_minor,
        built.amount_minor as fact_amount_minor
    from staged
    full join built
        on
            staged.merchant_id = built.merchant_id
            and staged.currency = built.currency
            and staged.fee_type = built.fee_type
    where coalesce(staged.amount_minor, 0) <> coalesce(built.amount_minor, 0)
)

select * from final
