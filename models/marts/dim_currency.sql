with

currencies as (
    select * from {{ ref('currencies') }}
),

final as (
    select
        currency,
        currency_name,
        exponent,
        false as is_unknown
    from currencies

    union all

    -- XXX is the code that ISO 4217 keeps for "no currency".
    select
        'XXX' as currency,
        'Unknown currency' as currency_name,
        2 as exponent,
        true as is_unknown
)

select * from final
