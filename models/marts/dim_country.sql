with

countries as (
    select * from {{ ref('countries') }}
),

final as (
    select
        country,
        country_name,
        region,
        subregion,
        currency,
        false as is_unknown
    from countries

    union all

    -- ZZ is among the codes that ISO 3166-1 leaves to its users.
    select
        'ZZ' as country,
        'Unknown country' as country_name,
        'Unknown' as region,
        'Unknown' as subregion,
        'XXX' as currency,
        true as is_unknown
)

select * from final
