{#-
    How charges become payments: one definition for what is built (int_*, fct_payments) and for what has just landed
    (fct_payments_live).
-#}

{#-
    Charges with what belongs to each, one row a charge. Reads the relations (CTEs) charges, refunds, disputes,
    balance_transactions, balance_transaction_fees, payment_methods and customers.
-#}
{% macro charges_in_full() -%}
    with

    -- Everything that a charge has many of comes down to one row a charge, in its currency, before it is joined.
    refunds_by_charge as (
        select
            merchant_id,
            charge_id,
            currency,
            count(*) as refund_count,
            cast(sum(amount_minor) as bigint) as refund_amount_minor
        from refunds
        where status not in ('failed', 'canceled')
        group by merchant_id, charge_id, currency
    ),

    -- An inquiry (warning_*) is no dispute yet, and a prevented one never becomes one: they move no money, give no label.
    disputes_by_charge as (
        select
            merchant_id,
            charge_id,
            currency,
            count(*) as dispute_count,
            cast(sum(case when status = 'won' then 0 else amount_minor end) as bigint) as disputed_amount_minor,
            min(case when reason = 'fraudulent' then created_at end) as fraud_known_at
        from disputes
        where status not in ('warning_needs_response', 'warning_under_review', 'warning_closed', 'prevented')
        group by merchant_id, charge_id, currency
    ),

    -- What the platform took; an application fee goes to another merchant.
    fees_by_charge as (
        select
            balance_transactions.merchant_id,
            balance_transactions.source_id as charge_id,
            balance_transaction_fees.currency,
            cast(sum(balance_transaction_fees.amount_minor) as bigint) as fee_minor
        from balance_transactions
        inner join balance_transaction_fees
            on
                balance_transactions.merchant_id = balance_transaction_fees.merchant_id
                and balance_transactions.balance_transaction_id = balance_transaction_fees.balance_transaction_id
        where
            balance_transactions.type = 'charge'
            and balance_transaction_fees.type = 'processing_fee'
        group by balance_transactions.merchant_id, balance_transactions.source_id, balance_transaction_fees.currency
    )

    select
        charges.merchant_id,
        charges.charge_id,
        charges.payment_intent_id,
        charges.customer_id,
        customers.network_token,
        customers.country as customer_country,
        charges.payment_method_id,
        payment_methods.type as payment_method_type,
        payment_methods.fingerprint,
        payment_methods.issuer_country,
        charges.device_id,
        charges.device_type,
        charges.ip_country,
        charges.ip_network_token,
        charges.currency,
        charges.status as charge_status,
        charges.failure_code,
        charges.amount_minor,
        charges.amount_captured_minor as captured_amount_minor,
        charges.amount_refunded_minor as refunded_amount_minor,
        coalesce(refunds_by_charge.refund_count, 0) as refund_count,
        coalesce(refunds_by_charge.refund_amount_minor, 0) as refund_amount_minor,
        coalesce(disputes_by_charge.dispute_count, 0) as dispute_count,
        coalesce(disputes_by_charge.disputed_amount_minor, 0) as disputed_amount_minor,
        coalesce(fees_by_charge.fee_minor, 0) as fee_minor,
        cast(charges.anomaly_score as double precision) as anomaly_score,
        disputes_by_charge.fraud_known_at is not null as is_fraud,
        disputes_by_charge.fraud_known_at,
        charges.created_at,
        charges._batch_id
    from charges
    left join customers
        on
            charges.merchant_id = customers.merchant_id
            and charges.customer_id = customers.customer_id
    left join payment_methods
        on
            charges.merchant_id = payment_methods.merchant_id
            and charges.payment_method_id = payment_methods.payment_method_id
    left join refunds_by_charge
        on
            charges.merchant_id = refunds_by_charge.merchant_id
            and charges.charge_id = refunds_by_charge.charge_id
            and charges.currency = refunds_by_charge.currency
    left join disputes_by_charge
        on
            charges.merchant_id = disputes_by_charge.merchant_id
            and charges.charge_id = disputes_by_charge.charge_id
            and charges.currency = disputes_by_charge.currency
    left join fees_by_charge
        on
            charges.merchant_id = fees_by_charge.merchant_id
            and charges.charge_id = fees_by_charge.charge_id
            and charges.currency = fees_by_charge.currency
{%- endmacro %}


{#- Payments of the operational store from a relation of charges in full. -#}
{% macro payments_of_charges(charges) -%}
    select
        {{ surrogate_key(["'oltp'", 'merchant_id', 'charge_id']) }} as payment_key,
        charge_id as payment_id,
        'oltp' as source,
        {{ surrogate_key(['merchant_id']) }} as merchant_key,
        merchant_id,
        {{ surrogate_key(["'oltp'", 'merchant_id', 'customer_id']) }} as customer_key,
        customer_id,
        network_token as person_token,
        customer_country,
        fingerprint as card_token,
        issuer_country,
        {{ payment_method_key_of('merchant_id', 'payment_method_id') }} as payment_method_key,
        payment_method_id,
        payment_method_type,
        device_id,
        device_type,
        ip_country,
        ip_network_token,
        currency,
        case
            when charge_status <> 'succeeded' then charge_status
            when disputed_amount_minor > 0 then 'disputed'
            when refunded_amount_minor = 0 then 'succeeded'
            when refunded_amount_minor < captured_amount_minor then 'partially_refunded'
            else 'refunded'
        end as status,
        failure_code,
        amount_minor,
        captured_amount_minor,
        refunded_amount_minor,
        disputed_amount_minor,
        fee_minor,
        anomaly_score,
        is_fraud,
        fraud_known_at,
        created_at as paid_at,
        _batch_id
    from {{ charges }}
{%- endmacro %}


{#- Payments at the value of their day in the reporting currency. Reads the relations payments, currencies and rates. -#}
{% macro converted_payments() -%}
    with

    -- The reporting currency is the dollar: book rates are kept against it.
    reporting as (
        select exponent
        from currencies
        where currency = 'USD'
    ),

    -- Before the first fixing the first one holds, after the last one the last.
    rate_days as (
        select
            min(rate_day) as first_day,
            max(rate_day) as last_day
        from rates
    ),

    dated as (
        select
            payments.*,
            {{ utc_date('payments.paid_at') }} as paid_on,
            currencies.exponent,
            least(greatest({{ utc_date('payments.paid_at') }}, rate_days.first_day), rate_days.last_day) as rate_day
        from payments
        cross join rate_days
        inner join currencies
            on payments.currency = currencies.currency
    )

    select
        dated.*,
        rates.rate_to_reporting,
        {{ minor_to_major('dated.amount_minor', 'dated.exponent') }} as amount,
        {{ convert_minor('dated.amount_minor', 'dated.exponent', 'rates.rate_to_reporting', 'reporting.exponent') }}
            as reporting_amount_minor,
        {{ convert_minor(
            'dated.captured_amount_minor', 'dated.exponent', 'rates.rate_to_reporting', 'reporting.exponent'
        ) }} as reporting_captured_amount_minor
    from dated
    cross join reporting
    left join rates
        on
            dated.currency = rates.currency
            and dated.rate_day = rates.rate_day
{%- endmacro %}


{#- The columns of the fact from a relation of converted payments that has the versions of its members. -#}
{% macro payment_facts(payments) -%}
    select
        -- keys
        payment_key,
        payment_id,
        source,
        merchant_key,
        merchant_version_key,
        merchant_id,
        customer_key,
        customer_version_key,
        customer_id,
        payment_method_key,
        {{ surrogate_key(['device_id']) }} as device_key,

        -- properties
        payment_method_type,
        currency,
        status,
        failure_code,
        device_type,
        coalesce(ip_country, 'ZZ') as ip_country,

        -- times
        paid_at,
        paid_on,
        {{ utc_minute('paid_at') }} as paid_minute,

        -- money
        amount_minor,
        captured_amount_minor,
        refunded_amount_minor,
        disputed_amount_minor,
        fee_minor,
        amount,
        rate_to_reporting,
        reporting_amount_minor,
        reporting_captured_amount_minor,

        -- fraud
        anomaly_score,
        is_fraud,
        fraud_known_at,

        -- lineage
        _batch_id
    from {{ payments }}
{%- endmacro %}
