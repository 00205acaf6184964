with

ledger_entries as (
    select * from {{ ref('fct_ledger_entries') }}
),

-- An account that has not landed has no code, and its entries count all the same.
entries as (
    select
        merchant_id,
        coalesce(account_code, 'unknown') as account_code,
        normal_side,
        currency,
        side,
        amount_minor,
        cast(date_trunc('month', posted_on) as date) as month_start_on
    from ledger_entries
),

moved as (
    select
        merchant_id,
        account_code,
        normal_side,
        currency,
        month_start_on,
        sum(case when side = 'D' then amount_minor else 0 end) as debit_minor,
        sum(case when side = 'C' then amount_minor else 0 end) as credit_minor
    from entries
    group by merchant_id, account_code, normal_side, currency, month_start_on
),

accounts as (
    select
        merchant_id,
        account_code,
        normal_side,
        currency,
        min(month_start_on) as first_month_start_on
    from moved
    group by merchant_id, account_code, normal_side, currency
),

months as (
    select cast(calendar.moment as date) as month_start_on
    from generate_series(
        (select cast(min(moved.month_start_on) as timestamp) from moved),
        (select cast(max(moved.month_start_on) as timestamp) from moved),
        interval '1 month'
    ) as calendar (moment)
),

-- Every account stands in every month from its first one on, so that what it closes with is what it opens with.
followed as (
    select
        accounts.merchant_id,
        accounts.account_code,
        accounts.normal_side,
        accounts.currency,
        months.month_start_on,
        coalesce(moved.debit_minor, 0) as debit_minor,
        coalesce(moved.credit_minor, 0) as credit_minor
    from accounts
    inner join months
        on accounts.first_month_start_on <= months.month_start_on
    left join moved
        on
            accounts.merchant_id = moved.merchant_id
            and accounts.account_code = moved.account_code
            and accounts.currency = moved.currency
            and months.month_start_on = moved.month_start_on
),

balanced as (
    select
        *,
        sum(debit_minor - credit_minor) over (
            partition by merchant_id, account_code, currency
            order by month_start_on
        ) as closing_minor
    from followed
),

final as (
    select
        {{ surrogate_key(['month_start_on', 'merchant_id', 'account_code', 'currency']) }} as trial_balance_key,
        month_start_on,
        {{ surrogate_key(['merchant_id']) }} as merchant_key,
        merchant_id,
        account_code,
        normal_side,
        currency,
        cast(closing_minor - debit_minor + credit_minor as bigint) as opening_minor,
        cast(debit_minor as bigint) as debit_minor,
        cast(credit_minor as bigint) as credit_minor,
        cast(closing_minor as bigint) as closing_minor
    from balanced
)

select * from final
