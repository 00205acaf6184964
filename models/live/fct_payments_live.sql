{%- set after = sequence_built() -%}
{%- set of_changed = 'select 1 from changed where staged.merchant_id = changed.merchant_id and changed.charge_id = ' -%}
with

built as (
    select * from {{ ref('fct_payments') }}
),

currencies as (
    select * from {{ ref('currencies') }}
),

rates as (
    select * from {{ ref('int_exchange_rates_daily') }}
),

merchant_versions as (
    select * from {{ ref('dim_merchant_version') }}
),

customer_versions as (
    select * from {{ ref('dim_customer_version') }}
),

-- No column of the fact comes from the customer.
customers as (
    select * from {{ ref('stg_oltp__customers') }}
    where merchant_id is null
),

-- Charges that something was landed of since: all of these are worked out anew.
changed as (
    {%- for entity in ['charges', 'refunds', 'disputes'] %}
        select
            live.merchant_id,
            live.charge_id
        from {{ live_rows(entity, after) }} as live
        union
    {%- endfor %}
    select
        live.merchant_id,
        live.source_id as charge_id
    from {{ live_rows('balance_transactions', after) }} as live
    where live.type = 'charge'
),

charges as (
    {{ current_rows('charges', ['merchant_id', 'charge_id'], [
        'payment_intent_id', 'customer_id', 'payment_method_id', 'device_id', 'device_type', 'ip_country', 'ip_network_token',
        'currency', 'status', 'failure_code', 'amount_minor', 'amount_captured_minor', 'amount_refunded_minor', 'anomaly_score',
        'created_at', '_batch_id',
    ], after, of_changed ~ 'staged.charge_id') }}
),

refunds as (
    {{ current_rows('refunds', ['merchant_id', 'refund_id'], ['charge_id', 'currency', 'status', 'amount_minor'],
        after, of_changed ~ 'staged.charge_id') }}
),

disputes as (
    {{ current_rows('disputes', ['merchant_id', 'dispute_id'], [
        'charge_id', 'currency', 'status', 'reason', 'amount_minor', 'created_at',
    ], after, of_changed ~ 'staged.charge_id') }}
),

balance_transactions as (
    {{ current_rows('balance_transactions', ['merchant_id', 'balance_transaction_id'], ['type', 'source_id'],
        after, of_changed ~ 'staged.source_id') }}
),

balance_transaction_fees as (
    {{ current_rows('balance_transaction_fees', ['merchant_id', 'balance_transaction_id', 'type'], [
        'currency', 'amount_minor',
    ], after, 'select 1 from balance_transactions where balance_transactions.merchant_id = staged.merchant_id'
        ~ ' and balance_transactions.balance_transaction_id = staged.balance_transaction_id') }}
),

payment_methods as (
    {{ current_rows('payment_methods', ['merchant_id', 'payment_method_id'], ['type', 'fingerprint', 'issuer_country'],
        after, 'select 1 from charges where charges.merchant_id = staged.merchant_id'
        ~ ' and charges.payment_method_id = staged.payment_method_id') }}
),

whole_charges as (
    {{ charges_in_full() }}
),

payments as (
    {{ payments_of_charges('whole_charges') }}
),

converted as (
    {{ converted_payments() }}
),

versioned as (
    {{ with_versions('converted', 'converted.paid_at', ['merchant', 'customer']) }}
),

final as (
    select built.*
    from built
    left join changed
        on
            built.merchant_id = changed.merchant_id
            and built.payment_id = changed.charge_id
            and built.source = 'oltp'
    where changed.charge_id is null

    union all

    {{ payment_facts('versioned') }}
)

select * from final
