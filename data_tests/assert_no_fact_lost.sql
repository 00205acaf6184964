-- Every record of staging is a row of its fact, and no fact has a row of its own making.
-- Returns the facts whose number of rows differs from staging.
with

charges as (
    select count(*) as row_count from {{ ref('stg_oltp__charges') }}
    where not is_deleted
),

transactions as (
    select count(*) as row_count from {{ ref('stg_files__transactions') }}
    where not is_deleted
),

refunds as (
    select count(*) as row_count from {{ ref('stg_oltp__refunds') }}
    where not is_deleted
),

disputes as (
    select count(*) as row_count from {{ ref('stg_oltp__disputes') }}
    where not is_deleted
),

ledger_entries as (
    select count(*) as row_count from {{ ref('stg_oltp__ledger_entries') }}
    where not is_deleted
),

fraud_scores as (
    select count(*) as row_count from {{ ref('stg_documents__fraud_scores') }}
    where not is_deleted
),

compared as (
    select
        'fct_payments' as fact,
        charges.row_count + transactions.row_count as staged_count,
        (select count(*) from {{ ref('fct_payments') }}) as fact_count
    from charges
    cross join transactions

    union all

    select
        'fct_refunds' as fact,
        row_count as staged_count,
        (select count(*) from {{ ref('fct_refunds') }}) as fact_count
    from refunds

    union all

    select
        'fct_disputes' as fact,
        row_count as staged_count,
        (select count(*) from {{ ref('fct_disputes') }}) as fact_count
    from disputes

    union all

    select
        'fct_ledger_entries' as fact,
        row_count as staged_count,
        (select count(*) from {{ ref('fct_ledger_entries') }}) as fact_count
    from ledger_entries

    union all

    select
        'fct_fraud_scores' as fact,
        row_count as staged_count,
        (select count(*) from {{ ref('fct_fraud_scores') }}) as fact_count
    from fraud_scores
),

final as (
    select * from compared
    where staged_count <> fact_count
)

select * from final
