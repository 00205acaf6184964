with

months_of_customers as (
    select * from {{ ref('int_mrr_customers') }}
),

final as (
    select
        -- keys
        {{ surrogate_key(['merchant_id', 'customer_id', 'currency', 'month_start_on']) }} as mrr_movement_key,
        {{ surrogate_key(['merchant_id']) }} as merchant_key,
        merchant_id,
        {{ customer_key_of('merchant_id', 'customer_id') }} as customer_key,
        customer_id,

        -- properties
        currency,
        movement,

        -- times
        month_start_on,
        measured_on,

        -- money
        mrr_before_minor,
        mrr_after_minor,
        change_minor,
        rate_to_reporting,
        reporting_mrr_before_minor,
        reporting_mrr_after_minor,
        reporting_change_minor
    from months_of_customers
    where movement is not null
)

select * from final
