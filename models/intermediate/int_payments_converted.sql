with

payments as (
    select * from {{ ref('int_payments_unioned') }}
),

currencies as (
    select * from {{ ref('currencies') }}
),

rates as (
    select * from {{ ref('int_exchange_rates_daily') }}
),

final as (
    {{ converted_payments() }}
)

select * from final
