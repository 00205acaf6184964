with

payments as (
    select * from {{ ref('int_payments_converted') }}
),

final as (
    {{ payment_facts('payments') }}
)

select * from final
