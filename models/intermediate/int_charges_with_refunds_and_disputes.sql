with

charges as (
    select * from {{ ref('stg_oltp__charges') }}
    where not is_deleted
),

refunds as (
    select * from {{ ref('stg_oltp__refunds') }}
    where not is_deleted
),

disputes as (
    select * from {{ ref('stg_oltp__disputes') }}
    where not is_deleted
),

balance_transactions as (
    select * from {{ ref('stg_oltp__balance_transactions') }}
    where not is_deleted
),

balance_transaction_fees as (
    select * from {{ ref('stg_oltp__balance_transaction_fees') }}
    where not is_deleted
),

payment_methods as (
    select * from {{ ref('stg_oltp__payment_methods') }}
    where not is_deleted
),

customers as (
    select * from {{ ref('stg_oltp__customers') }}
    where not is_deleted
),

final as (
    {{ charges_in_full() }}
)

select * from final
