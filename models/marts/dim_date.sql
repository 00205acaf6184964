with

payments as (
    select * from {{ ref('int_payments_converted') }}
),

refunds as (
    select * from {{ ref('int_refunds_converted') }}
),

disputes as (
    select * from {{ ref('int_disputes_converted') }}
),

ledger_entries as (
    select * from {{ ref('int_ledger_entries_joined') }}
),

-- The moments of documents, by collection.
documents as (
    {%- for collection, moment in [
        ['sessions', 'started_at'],
        ['click_events', 'occurred_at'],
        ['feedback', 'submitted_at'],
        ['api_logs', 'occurred_at'],
        ['webhook_deliveries', 'created_at'],
        ['fraud_decisions', 'decided_at'],
        ['audit_events', 'occurred_at'],
    ] %}
        select {{ utc_date(moment) }} as happened_on from {{ ref('stg_documents__' ~ collection) }}
        where not is_deleted
        {%- if not loop.last %}
            union
        {%- endif %}
    {%- endfor %}
),

reconciled_payouts as (
    select * from {{ ref('int_payouts_reconciled') }}
),

balance_transactions as (
    select * from {{ ref('int_balance_transactions_converted') }}
),

payouts as (
    select * from {{ ref('int_payouts_converted') }}
),

subscription_events as (
    select * from {{ ref('int_subscription_events') }}
),

invoices as (
    select * from {{ ref('int_invoices_converted') }}
),

invoice_lines as (
    select * from {{ ref('stg_oltp__invoice_lines') }}
    where not is_deleted
),

exchange_rates as (
    select * from {{ ref('int_exchange_rates_daily') }}
),

batches as (
    select * from {{ ref('stg_platform__batches') }}
),

months_of_mrr as (
    select * from {{ ref('int_mrr_months') }}
),

spine as (
    select cast(calendar.moment as date) as date_day
    from generate_series(
        cast('{{ var("calendar_from") }}' as timestamp),
        cast('{{ var("calendar_until") }}' as timestamp),
        interval '1 day'
    ) as calendar (moment)
),

-- Days outside the spine that a fact falls on are members as well, so that no fact is lost.
all_days as (
    select date_day from spine
    union
    select paid_on from payments
    union
    select refunded_on from refunds
    union
    select opened_on from disputes
    union
    select {{ utc_date('posted_at') }} from ledger_entries
    union
    select happened_on from documents
    union
    select coalesce(booked_on, expected_on) from reconciled_payouts
    union
    select created_on from balance_transactions
    union
    select available_on from balance_transactions
    union
    select created_on from payouts
    union
    select arrival_date from payouts
    union
    select {{ utc_date('occurred_at') }} from subscription_events
    union
    select created_on from invoices
    union
    select {{ utc_date('created_at') }} from invoice_lines
    union
    select rate_day from exchange_rates
    union
    select {{ utc_date('landed_at') }} from batches
    union
    select cast(date_trunc('month', {{ utc_date('posted_at') }}) as date) from ledger_entries
    union
    select month_start_on from months_of_mrr
    union
    select {{ utc_date('measured_at') }} from months_of_mrr
),

parts as (
    select
        date_day,
        cast(extract(year from date_day) as integer) as year_number,
        cast(extract(quarter from date_day) as integer) as quarter_number,
        cast(extract(month from date_day) as integer) as month_number,
        cast(extract(day from date_day) as integer) as day_of_month,
        cast(extract(doy from date_day) as integer) as day_of_year,
        cast(extract(isodow from date_day) as integer) as iso_day_of_week,
        cast(extract(isoyear from date_day) as integer) as iso_year,
        cast(extract(week from date_day) as integer) as iso_week
    from all_days
    where date_day is not null
),

final as (
    select
        date_day,
        year_number,
        quarter_number,
        month_number,
        day_of_month,
        day_of_year,
        iso_day_of_week,
        iso_year,
        iso_week,
        {{ name_of('month_number', [
            'January', 'February', 'March', 'April', 'May', 'June',
            'July', 'August', 'September', 'October', 'November', 'December',
        ]) }} as month_name,
        {{ name_of('iso_day_of_week', [
            'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday',
        ]) }} as day_name,
        cast(date_trunc('month', date_day) as date) as month_start_on,
        cast(date_trunc('week', date_day) as date) as week_start_on,
        iso_day_of_week >= 6 as is_weekend
    from parts
)

select * from final
