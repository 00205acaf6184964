-- Payments, normalized. Every tenant key leads with merchant_id (shard key); ids are the natural ones; money is bigint minor
-- units. What grows with traffic and is referred to by others is hash-partitioned by merchant: the unit that moves to
-- another machine. Catalogue tables (products, prices, coupons) stay whole: they are small.
create procedure core.partition_by_merchant(p_table regclass, p_partitions integer default 4)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_schema text;
    v_name text;
begin
    select n.nspname, c.relname into strict v_schema, v_name
    from pg_class as c
    inner join pg_namespace as n on c.relnamespace = n.oid
    where c.oid = p_table;
    for v_remainder in 0..p_partitions - 1 loop
        execute format(
            'create table %I.%I partition of %s for values with (modulus %s, remainder %s)',
            v_schema,
            v_name || '_p' || v_remainder,
            p_table,
            p_partitions,
            v_remainder
        );
    end loop;
end
$$;
comment on procedure core.partition_by_merchant is 'Makes the hash partitions of a tenant table.';

create table core.merchants (
    merchant_id text primary key check (merchant_id ~ '^acct_[A-Za-z0-9]+$'),
    business_name text not null,
    mcc char(4) not null references core.merchant_categories,
    country char(2) not null references core.countries,
    default_currency char(3) not null references core.currencies,
    status text not null default 'active' check (status in ('active', 'restricted', 'closed')),
    ledger_buckets smallint not null default 1 check (ledger_buckets between 1 and 64),
    fee_basis_points integer not null default 290 check (fee_basis_points between 0 and 10000),
    fee_fixed_minor bigint not null default 30 check (fee_fixed_minor >= 0),
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null,
    updated_at timestamptz not null
);
comment on column core.merchants.ledger_buckets is 'Into how many rows the hot ledger accounts of this merchant are spread.';
comment on table core.merchants is 'One row a merchant (connected account), the tenant of everything below.';

create table core.customers (
    merchant_id text not null references core.merchants,
    customer_id text not null check (customer_id ~ '^cus_[A-Za-z0-9]+$'),
    merchant_token text not null,
    network_token text not null,
    country char(2) not null references core.countries,
    city text not null,
    email_domain text not null,
    has_marketing_consent boolean not null,
    consent_at timestamptz not null,
    retention_until date not null,
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (merchant_id, customer_id)
) partition by hash (merchant_id);
call core.partition_by_merchant('core.customers');
comment on table core.customers is 'One row a customer: a person at one merchant, pseudonymous. Identity stands in identity.customers.';
comment on column core.customers.merchant_token is 'Keyed token of the person, scoped to the merchant (analytics).';
comment on column core.customers.network_token is 'Keyed token of the person across merchants (fraud detection only).';

create schema identity;
create table identity.customers (
    merchant_id text not null,
    customer_id text not null,
    subject_id uuid not null references vault.subjects,
    name_encrypted bytea not null,
    email_encrypted bytea not null,
    phone_encrypted bytea not null,
    address_encrypted bytea not null,
    primary key (merchant_id, customer_id),
    foreign key (merchant_id, customer_id) references core.customers
);
comment on table identity.customers is 'The identity of a customer, each field encrypted under the key of its subject. Never landed.';
create index customers_by_subject on identity.customers (subject_id);

create table core.payment_methods (
    merchant_id text not null,
    payment_method_id text not null check (payment_method_id ~ '^pm_[A-Za-z0-9]+$'),
    customer_id text not null,
    type text not null check (type in ('card', 'wallet', 'bank_debit')),
    brand text check (brand in ('visa', 'mastercard', 'amex', 'discover', 'jcb', 'unionpay')),
    last4 char(4) check (last4 ~ '^[0-9]{4}$'),
    exp_month smallint check (exp_month between 1 and 12),
    exp_year smallint check (exp_year between 2000 and 2100),
    funding text check (funding in ('credit', 'debit', 'prepaid', 'unknown')),
    issuer_country char(2) references core.countries,
    fingerprint text not null,
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (merchant_id, payment_method_id),
    foreign key (merchant_id, customer_id) references core.customers,
    constraint card_fields check (
        type = 'bank_debit' or (brand is not null and last4 is not null and exp_month is not null and exp_year is not null)
    )
) partition by hash (merchant_id);
call core.partition_by_merchant('core.payment_methods');
comment on table core.payment_methods is 'One row a stored payment method. No column can hold a card number: brand, last four, expiry, keyed fingerprint.';
create index payment_methods_by_customer on core.payment_methods (merchant_id, customer_id);

create table core.payment_intents (
    merchant_id text not null references core.merchants,
    payment_intent_id text not null check (payment_intent_id ~ '^pi_[A-Za-z0-9]+$'),
    customer_id text not null,
    payment_method_id text,
    amount_minor bigint not null check (amount_minor > 0),
    amount_capturable_minor bigint not null default 0,
    amount_received_minor bigint not null default 0,
    currency char(3) not null references core.currencies,
    capture_method text not null default 'automatic' check (capture_method in ('automatic', 'manual')),
    application_merchant_id text references core.merchants,
    application_fee_minor bigint not null default 0 check (application_fee_minor >= 0),
    cancellation_reason text check (
        cancellation_reason in ('duplicate', 'fraudulent', 'requested_by_customer', 'abandoned', 'expired')
    ),
    canceled_at timestamptz,
    status text not null check (status in (
        'requires_payment_method', 'requires_confirmation', 'requires_action', 'processing',
        'requires_capture', 'succeeded', 'canceled'
    )),
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (merchant_id, payment_intent_id),
    foreign key (merchant_id, customer_id) references core.customers,
    foreign key (merchant_id, payment_method_id) references core.payment_methods,
    constraint received_within_amount check (amount_received_minor between 0 and amount_minor),
    constraint capturable_while_authorized check (
        amount_capturable_minor between 0 and amount_minor
        and (amount_capturable_minor > 0) = (status = 'requires_capture')
    ),
    constraint canceled_has_moment check ((status = 'canceled') = (canceled_at is not null)),
    constraint application_fee_has_owner check (application_fee_minor = 0 or application_merchant_id is not null)
) partition by hash (merchant_id);
call core.partition_by_merchant('core.payment_intents');
comment on column core.payment_intents.application_merchant_id is 'The platform merchant that takes the application fee.';
comment on table core.payment_intents is 'One row an intention to pay; it gathers the charge attempts until one succeeds.';
create index payment_intents_by_customer on core.payment_intents (merchant_id, customer_id);

create table core.charges (
    merchant_id text not null references core.merchants,
    charge_id text not null check (charge_id ~ '^ch_[A-Za-z0-9]+$'),
    payment_intent_id text not null,
    customer_id text not null,
    payment_method_id text not null,
    amount_minor bigint not null check (amount_minor > 0),
    amount_captured_minor bigint not null default 0,
    amount_refunded_minor bigint not null default 0,
    currency char(3) not null references core.currencies,
    status text not null check (status in ('pending', 'succeeded', 'failed')),
    failure_code text,
    captured_at timestamptz,
    is_disputed boolean not null default false,
    ip_country char(2) references core.countries,
    ip_city text,
    ip_network_token text,
    device_id text,
    device_type text check (device_type in ('mobile', 'desktop', 'tablet', 'terminal')),
    anomaly_score numeric(5, 4) check (anomaly_score between 0 and 1),
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (merchant_id, charge_id),
    foreign key (merchant_id, payment_intent_id) references core.payment_intents,
    foreign key (merchant_id, customer_id) references core.customers,
    foreign key (merchant_id, payment_method_id) references core.payment_methods,
    constraint captured_within_amount check (amount_captured_minor between 0 and amount_minor),
    constraint refunded_within_captured check (amount_refunded_minor between 0 and amount_captured_minor),
    constraint captured_when_succeeded check ((status = 'succeeded') = (amount_captured_minor > 0)),
    constraint failed_has_code check ((status = 'failed') = (failure_code is not null)),
    constraint captured_has_moment check ((status = 'succeeded') = (captured_at is not null))
) partition by hash (merchant_id);
call core.partition_by_merchant('core.charges');
comment on table core.charges is 'One row a charge attempt: who, what, when, where from, on which device, and how it ended.';
comment on column core.charges.anomaly_score is 'Anomaly score from 0 to 1 that the rules gave at the moment of payment.';
create unique index one_success_per_intent on core.charges (merchant_id, payment_intent_id) where status = 'succeeded';
create unique index one_attempt_pending on core.charges (merchant_id, payment_intent_id) where status = 'pending';
create index charges_by_intent on core.charges (merchant_id, payment_intent_id);
create index charges_recent on core.charges (merchant_id, created_at desc);
create index charges_by_customer on core.charges (merchant_id, customer_id, created_at desc);

create table core.refunds (
    merchant_id text not null,
    refund_id text not null check (refund_id ~ '^re_[A-Za-z0-9]+$'),
    charge_id text not null,
    amount_minor bigint not null check (amount_minor > 0),
    currency char(3) not null references core.currencies,
    status text not null check (status in ('pending', 'requires_action', 'succeeded', 'failed', 'canceled')),
    failure_reason text,
    reason text not null check (reason in ('duplicate', 'fraudulent', 'requested_by_customer')),
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (merchant_id, refund_id),
    foreign key (merchant_id, charge_id) references core.charges
) partition by hash (merchant_id);
call core.partition_by_merchant('core.refunds');
comment on table core.refunds is 'One row a refund of a charge, in part or whole.';
create index refunds_by_charge on core.refunds (merchant_id, charge_id);
create index refunds_open on core.refunds (created_at) where status in ('pending', 'requires_action');

create table core.disputes (
    merchant_id text not null,
    dispute_id text not null check (dispute_id ~ '^dp_[A-Za-z0-9]+$'),
    charge_id text not null,
    amount_minor bigint not null check (amount_minor > 0),
    fee_minor bigint not null default 0 check (fee_minor >= 0),
    currency char(3) not null references core.currencies,
    status text not null check (status in (
        'warning_needs_response', 'warning_under_review', 'warning_closed', 'needs_response', 'under_review', 'won', 'lost',
        'prevented'
    )),
    reason text not null check (reason in (
        'fraudulent', 'product_not_received', 'product_unacceptable', 'duplicate', 'subscription_canceled', 'general'
    )),
    evidence_due_at timestamptz,
    closed_at timestamptz,
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (merchant_id, dispute_id),
    foreign key (merchant_id, charge_id) references core.charges,
    constraint closed_when_decided check (
        (status in ('won', 'lost', 'warning_closed', 'prevented')) = (closed_at is not null)
    )
) partition by hash (merchant_id);
call core.partition_by_merchant('core.disputes');
comment on table core.disputes is 'One row a dispute (chargeback). Its creation is the moment a fraud label becomes known.';
create index disputes_by_charge on core.disputes (merchant_id, charge_id);
create index disputes_open on core.disputes (evidence_due_at) where status in ('needs_response', 'warning_needs_response');

create table core.balance_transactions (
    merchant_id text not null references core.merchants,
    balance_transaction_id text not null check (balance_transaction_id ~ '^txn_[A-Za-z0-9]+$'),
    type text not null check (type in (
        'charge', 'refund', 'refund_failure', 'dispute', 'dispute_reversal', 'payout', 'payout_failure', 'transfer',
        'transfer_in', 'application_fee', 'topup', 'conversion_out', 'conversion_in', 'adjustment', 'reversal'
    )),
    source_id text not null,
    amount_minor bigint not null,
    fee_minor bigint not null,
    net_minor bigint not null,
    currency char(3) not null references core.currencies,
    available_at timestamptz not null,
    created_at timestamptz not null,
    primary key (merchant_id, balance_transaction_id),
    constraint net_is_amount_less_fee check (net_minor = amount_minor - fee_minor),
    unique (merchant_id, type, source_id)
) partition by hash (merchant_id);
call core.partition_by_merchant('core.balance_transactions');
comment on table core.balance_transactions is 'One row a movement of a merchant''s balance: amount, fee and net, signed from the merchant''s view.';
create index balance_transactions_recent on core.balance_transactions (merchant_id, currency, created_at desc);

create table core.balance_transaction_fees (
    merchant_id text not null,
    balance_transaction_id text not null,
    type text not null check (type in ('processing_fee', 'application_fee', 'dispute_fee', 'conversion_fee')),
    amount_minor bigint not null check (amount_minor > 0),
    currency char(3) not null references core.currencies,
    primary key (merchant_id, balance_transaction_id, type),
    foreign key (merchant_id, balance_transaction_id) references core.balance_transactions
) partition by hash (merchant_id);
call core.partition_by_merchant('core.balance_transaction_fees');
comment on table core.balance_transaction_fees is 'One row a part of the fee of a balance transaction; the parts add up to its fee.';

create table core.setup_intents (
    merchant_id text not null references core.merchants,
    setup_intent_id text not null check (setup_intent_id ~ '^seti_[A-Za-z0-9]+$'),
    customer_id text not null,
    payment_method_id text,
    usage text not null default 'off_session' check (usage in ('off_session', 'on_session')),
    status text not null check (status in (
        'requires_payment_method', 'requires_confirmation', 'requires_action', 'processing', 'succeeded', 'canceled'
    )),
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (merchant_id, setup_intent_id),
    foreign key (merchant_id, customer_id) references core.customers,
    foreign key (merchant_id, payment_method_id) references core.payment_methods
) partition by hash (merchant_id);
call core.partition_by_merchant('core.setup_intents');
comment on table core.setup_intents is 'One row an attempt to store a payment method for later use.';
create index setup_intents_by_customer on core.setup_intents (merchant_id, customer_id);

create table core.reviews (
    merchant_id text not null,
    review_id text not null check (review_id ~ '^prv_[A-Za-z0-9]+$'),
    charge_id text not null,
    opened_reason text not null check (opened_reason in ('rule', 'manual')),
    closed_reason text check (closed_reason in (
        'approved', 'refunded', 'refunded_as_fraud', 'disputed', 'redacted', 'canceled', 'payment_never_settled',
        'acknowledged'
    )),
    closed_at timestamptz,
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (merchant_id, review_id),
    foreign key (merchant_id, charge_id) references core.charges,
    constraint closed_has_reason check ((closed_reason is null) = (closed_at is null))
);
comment on table core.reviews is 'One row a manual review of a charge.';
create index reviews_by_charge on core.reviews (merchant_id, charge_id);

create table core.early_fraud_warnings (
    merchant_id text not null,
    early_fraud_warning_id text not null check (early_fraud_warning_id ~ '^issfr_[A-Za-z0-9]+$'),
    charge_id text not null,
    fraud_type text not null check (fraud_type in (
        'made_with_stolen_card', 'made_with_lost_card', 'made_with_counterfeit_card', 'card_never_received',
        'fraudulent_card_application', 'unauthorized_use_of_card', 'misc'
    )),
    is_actionable boolean not null,
    created_at timestamptz not null,
    primary key (merchant_id, early_fraud_warning_id),
    foreign key (merchant_id, charge_id) references core.charges
);
comment on table core.early_fraud_warnings is 'One row a warning of the card issuer that a charge may be fraudulent.';
create index early_fraud_warnings_by_charge on core.early_fraud_warnings (merchant_id, charge_id);
