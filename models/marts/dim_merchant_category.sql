with

merchant_categories as (
    select * from {{ ref('merchant_categories') }}
),

merchants as (
    select * from {{ ref('stg_oltp__merchants') }}
),

merchant_versions as (
    select * from {{ ref('hist_merchants') }}
),

described as (
    select
        mcc,
        category_name,
        vertical,
        false as is_inferred
    from merchant_categories
),

-- The code 0000 stands for what is not known: no category has it.
mentioned as (
    select '0000' as mcc
    union
    select mcc from merchants
    union
    select mcc from merchant_versions
),

undescribed as (
    select
        mentioned.mcc,
        'Unknown category' as category_name,
        'unknown' as vertical,
        true as is_inferred
    from mentioned
    left join described
        on mentioned.mcc = described.mcc
    where
        mentioned.mcc is not null
        and described.mcc is null
),

final as (
    select * from described
    union all
    select * from undescribed
)

select * from final
