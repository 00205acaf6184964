-- In every book, month and currency debits are equal to credits, and every account opens with what it closed with.
-- Returns the books, or the accounts of books, where that is not so.
with

trial_balance as (
    select
        *,
        coalesce(
            lag(closing_minor) over (partition by merchant_id, account_code, currency order by month_start_on), 0
        ) as closed_before_minor
    from {{ ref('agg_trial_balance') }}
),

out_of_balance as (
    select
        merchant_id,
        month_start_on,
        currency,
        'debits and credits' as failure
    from trial_balance
    group by merchant_id, month_start_on, currency
    having sum(debit_minor) <> sum(credit_minor)
),

broken as (
    select
        merchant_id,
        month_start_on,
        currency,
        'opening of ' || account_code as failure
    from trial_balance
    where opening_minor <> closed_before_minor
),

final as (
    select * from out_of_balance
    union all
    select * from broken
)

select * from final
