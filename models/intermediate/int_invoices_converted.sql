with

invoices as (
    select * from {{ ref('stg_oltp__invoices') }}
    where not is_deleted
),

currencies as (
    select * from {{ ref('currencies') }}
),

rates as (
    select * from {{ ref('int_exchange_rates_daily') }}
),

dated as (
    select
        {{ surrogate_key(['merchant_id', 'invoice_id']) }} as invoice_key,
        *,
        {{ utc_date('created_at') }} as created_on
    from invoices
),

rated as (
    {{ with_rate_of_day('dated', 'created_on') }}
),

final as (
    select
        *,
        {{ reporting_minor('total_minor') }} as reporting_total_minor,
        {{ reporting_minor('amount_paid_minor') }} as reporting_amount_paid_minor
    from rated
)

select * from final
