-- What a merchant sells and bills: catalogue, subscriptions, invoices; and what moves a merchant's own balance.
create table core.products (
    merchant_id text not null references core.merchants,
    product_id text not null check (product_id ~ '^prod_[A-Za-z0-9]+$'),
    product_name text not null,
    is_active boolean not null default true,
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (merchant_id, product_id)
);
comment on table core.products is 'One row a product or service of a merchant.';

create table core.prices (
    merchant_id text not null,
    price_id text not null check (price_id ~ '^price_[A-Za-z0-9]+$'),
    product_id text not null,
    currency char(3) not null references core.currencies,
    unit_amount_minor bigint not null check (unit_amount_minor >= 0),
    billing_interval text check (billing_interval in ('day', 'week', 'month', 'year')),
    interval_count smallint check (interval_count between 1 and 36),
    is_active boolean not null default true,
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (merchant_id, price_id),
    foreign key (merchant_id, product_id) references core.products,
    constraint interval_is_whole check ((billing_interval is null) = (interval_count is null))
);
comment on table core.prices is 'One row a price of a product; without a billing interval it is charged once.';
create index prices_by_product on core.prices (merchant_id, product_id);

create table core.coupons (
    merchant_id text not null references core.merchants,
    coupon_id text not null check (coupon_id ~ '^co_[A-Za-z0-9]+$'),
    percent_off_basis_points integer check (percent_off_basis_points between 1 and 10000),
    amount_off_minor bigint check (amount_off_minor > 0),
    currency char(3) references core.currencies,
    duration text not null check (duration in ('once', 'repeating', 'forever')),
    duration_in_months smallint check (duration_in_months > 0),
    is_valid boolean not null default true,
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (merchant_id, coupon_id),
    constraint share_or_amount check ((percent_off_basis_points is null) <> (amount_off_minor is null)),
    constraint amount_has_currency check ((amount_off_minor is null) = (currency is null)),
    constraint repeating_has_months check ((duration = 'repeating') = (duration_in_months is not null))
);
comment on table core.coupons is 'One row a coupon: a share or an amount off.';

create table core.subscriptions (
    merchant_id text not null references core.merchants,
    subscription_id text not null check (subscription_id ~ '^sub_[A-Za-z0-9]+$'),
    customer_id text not null,
    payment_method_id text,
    currency char(3) not null references core.currencies,
    status text not null check (status in (
        'incomplete', 'incomplete_expired', 'trialing', 'active', 'past_due', 'canceled', 'unpaid', 'paused'
    )),
    trial_end_at timestamptz,
    is_canceling_at_period_end boolean not null default false,
    canceled_at timestamptz,
    ended_at timestamptz,
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (merchant_id, subscription_id),
    foreign key (merchant_id, customer_id) references core.customers,
    foreign key (merchant_id, payment_method_id) references core.payment_methods,
    constraint ended_when_over check ((status in ('canceled', 'incomplete_expired')) = (ended_at is not null))
) partition by hash (merchant_id);
call core.partition_by_merchant('core.subscriptions');
comment on table core.subscriptions is 'One row a subscription of a customer.';
create index subscriptions_by_customer on core.subscriptions (merchant_id, customer_id);

create table core.subscription_items (
    merchant_id text not null,
    subscription_item_id text not null check (subscription_item_id ~ '^si_[A-Za-z0-9]+$'),
    subscription_id text not null,
    price_id text not null,
    quantity bigint not null check (quantity > 0),
    current_period_start_at timestamptz not null,
    current_period_end_at timestamptz not null,
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (merchant_id, subscription_item_id),
    foreign key (merchant_id, subscription_id) references core.subscriptions,
    foreign key (merchant_id, price_id) references core.prices,
    constraint period_runs_forward check (current_period_start_at < current_period_end_at)
) partition by hash (merchant_id);
call core.partition_by_merchant('core.subscription_items');
comment on table core.subscription_items is 'One row a price that a subscription bills, with its quantity and current period.';
create index subscription_items_by_subscription on core.subscription_items (merchant_id, subscription_id);
create index subscription_items_due on core.subscription_items (current_period_end_at);

create table core.discounts (
    merchant_id text not null,
    discount_id text not null check (discount_id ~ '^di_[A-Za-z0-9]+$'),
    coupon_id text not null,
    subscription_id text not null,
    starts_at timestamptz not null,
    ends_at timestamptz,
    created_at timestamptz not null,
    primary key (merchant_id, discount_id),
    foreign key (merchant_id, coupon_id) references core.coupons,
    foreign key (merchant_id, subscription_id) references core.subscriptions,
    constraint discount_runs_forward check (ends_at > starts_at)
);
comment on table core.discounts is 'One row a coupon applied to a subscription.';
create index discounts_by_subscription on core.discounts (merchant_id, subscription_id);

create table core.invoices (
    merchant_id text not null references core.merchants,
    invoice_id text not null check (invoice_id ~ '^in_[A-Za-z0-9]+$'),
    customer_id text not null,
    subscription_id text,
    payment_intent_id text,
    currency char(3) not null references core.currencies,
    status text not null check (status in ('draft', 'open', 'paid', 'uncollectible', 'void')),
    billing_reason text not null check (
        billing_reason in ('subscription_create', 'subscription_cycle', 'subscription_update', 'manual')
    ),
    subtotal_minor bigint not null default 0 check (subtotal_minor >= 0),
    discount_minor bigint not null default 0 check (discount_minor between 0 and subtotal_minor),
    total_minor bigint not null default 0,
    amount_paid_minor bigint not null default 0 check (amount_paid_minor >= 0),
    amount_credited_minor bigint not null default 0 check (amount_credited_minor >= 0),
    due_at timestamptz,
    finalized_at timestamptz,
    paid_at timestamptz,
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (merchant_id, invoice_id),
    foreign key (merchant_id, customer_id) references core.customers,
    foreign key (merchant_id, subscription_id) references core.subscriptions,
    foreign key (merchant_id, payment_intent_id) references core.payment_intents,
    constraint total_is_subtotal_less_discount check (total_minor = subtotal_minor - discount_minor),
    constraint settled_within_total check (amount_paid_minor + amount_credited_minor <= total_minor),
    constraint finalized_unless_draft check ((status = 'draft') = (finalized_at is null)),
    constraint paid_in_full check (
        (status = 'paid') = (paid_at is not null)
        and (status <> 'paid' or amount_paid_minor + amount_credited_minor = total_minor)
    )
) partition by hash (merchant_id);
call core.partition_by_merchant('core.invoices');
comment on table core.invoices is 'One row an invoice; its total is what its lines add up to, less the discount.';
create index invoices_by_customer on core.invoices (merchant_id, customer_id, created_at desc);
create index invoices_by_subscription on core.invoices (merchant_id, subscription_id);
create index invoices_open on core.invoices (due_at) where status = 'open';

create table core.invoice_lines (
    merchant_id text not null,
    invoice_line_id text not null check (invoice_line_id ~ '^il_[A-Za-z0-9]+$'),
    invoice_id text not null,
    price_id text,
    subscription_item_id text,
    description text not null,
    quantity bigint not null check (quantity > 0),
    amount_minor bigint not null check (amount_minor >= 0),
    currency char(3) not null references core.currencies,
    is_proration boolean not null default false,
    period_start_at timestamptz not null,
    period_end_at timestamptz not null,
    created_at timestamptz not null,
    primary key (merchant_id, invoice_line_id),
    foreign key (merchant_id, invoice_id) references core.invoices,
    foreign key (merchant_id, price_id) references core.prices,
    foreign key (merchant_id, subscription_item_id) references core.subscription_items,
    constraint line_period_runs_forward check (period_start_at <= period_end_at)
) partition by hash (merchant_id);
call core.partition_by_merchant('core.invoice_lines');
comment on table core.invoice_lines is 'One row a line of an invoice.';
create index invoice_lines_by_invoice on core.invoice_lines (merchant_id, invoice_id);

create table core.credit_notes (
    merchant_id text not null,
    credit_note_id text not null check (credit_note_id ~ '^cn_[A-Za-z0-9]+$'),
    invoice_id text not null,
    refund_id text,
    amount_minor bigint not null check (amount_minor > 0),
    currency char(3) not null references core.currencies,
    reason text not null check (
        reason in ('duplicate', 'fraudulent', 'order_change', 'product_unsatisfactory')
    ),
    created_at timestamptz not null,
    primary key (merchant_id, credit_note_id),
    foreign key (merchant_id, invoice_id) references core.invoices,
    foreign key (merchant_id, refund_id) references core.refunds
);
comment on table core.credit_notes is 'One row a reduction of an invoice: of what is still due, or by a refund of what was paid.';
create index credit_notes_by_invoice on core.credit_notes (merchant_id, invoice_id);

create table core.checkout_sessions (
    merchant_id text not null references core.merchants,
    checkout_session_id text not null check (checkout_session_id ~ '^cs_[A-Za-z0-9]+$'),
    customer_id text not null,
    payment_intent_id text,
    mode text not null check (mode in ('payment', 'setup', 'subscription')),
    status text not null check (status in ('open', 'complete', 'expired')),
    amount_total_minor bigint not null check (amount_total_minor >= 0),
    currency char(3) not null references core.currencies,
    expires_at timestamptz not null,
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (merchant_id, checkout_session_id),
    foreign key (merchant_id, customer_id) references core.customers,
    foreign key (merchant_id, payment_intent_id) references core.payment_intents
) partition by hash (merchant_id);
call core.partition_by_merchant('core.checkout_sessions');
comment on table core.checkout_sessions is 'One row a visit to the hosted payment page.';
create index checkout_sessions_by_customer on core.checkout_sessions (merchant_id, customer_id);
create index checkout_sessions_by_intent on core.checkout_sessions (merchant_id, payment_intent_id);
create index checkout_sessions_open on core.checkout_sessions (expires_at) where status = 'open';

create table core.settlements (
    merchant_id text not null references core.merchants,
    currency char(3) not null references core.currencies,
    day date not null,
    amount_minor bigint not null check (amount_minor > 0),
    net_minor bigint not null check (net_minor between 0 and amount_minor),
    settled_at timestamptz not null,
    primary key (merchant_id, currency, day)
) partition by hash (merchant_id);
call core.partition_by_merchant('core.settlements');
comment on table core.settlements is 'One row a day (UTC) of charges of a merchant and currency whose money arrived.';

create table core.payouts (
    merchant_id text not null references core.merchants,
    payout_id text not null check (payout_id ~ '^po_[A-Za-z0-9]+$'),
    amount_minor bigint not null check (amount_minor > 0),
    currency char(3) not null references core.currencies,
    status text not null check (status in ('pending', 'in_transit', 'paid', 'failed', 'canceled')),
    is_automatic boolean not null,
    failure_code text,
    arrival_date date not null,
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (merchant_id, payout_id),
    constraint failed_payout_has_code check ((status = 'failed') = (failure_code is not null))
) partition by hash (merchant_id);
call core.partition_by_merchant('core.payouts');
comment on table core.payouts is 'One row a payment to the merchant''s bank account; an automatic one pays out whole balance transactions.';
create index payouts_recent on core.payouts (merchant_id, created_at desc);
create index payouts_under_way on core.payouts (arrival_date) where status in ('pending', 'in_transit');

create table core.payout_balance_transactions (
    merchant_id text not null,
    balance_transaction_id text not null,
    payout_id text not null,
    primary key (merchant_id, balance_transaction_id),
    foreign key (merchant_id, balance_transaction_id) references core.balance_transactions,
    foreign key (merchant_id, payout_id) references core.payouts
) partition by hash (merchant_id);
call core.partition_by_merchant('core.payout_balance_transactions');
comment on table core.payout_balance_transactions is 'One row a balance transaction that an automatic payout pays out; each at most once.';
create index payout_balance_transactions_by_payout on core.payout_balance_transactions (merchant_id, payout_id);

create table core.transfers (
    merchant_id text not null references core.merchants,
    transfer_id text not null check (transfer_id ~ '^tr_[A-Za-z0-9]+$'),
    destination_merchant_id text not null references core.merchants,
    amount_minor bigint not null check (amount_minor > 0),
    amount_reversed_minor bigint not null default 0 check (amount_reversed_minor in (0, amount_minor)),
    currency char(3) not null references core.currencies,
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (merchant_id, transfer_id),
    constraint transfer_goes_elsewhere check (merchant_id <> destination_merchant_id)
);
comment on table core.transfers is 'One row a movement of funds from one merchant''s balance to another''s.';
create index transfers_recent on core.transfers (merchant_id, created_at desc);
create index transfers_by_destination on core.transfers (destination_merchant_id, created_at desc);

create table core.application_fees (
    merchant_id text not null,
    application_fee_id text not null check (application_fee_id ~ '^fee_[A-Za-z0-9]+$'),
    charge_id text not null,
    application_merchant_id text not null references core.merchants,
    amount_minor bigint not null check (amount_minor > 0),
    currency char(3) not null references core.currencies,
    created_at timestamptz not null,
    primary key (merchant_id, application_fee_id),
    foreign key (merchant_id, charge_id) references core.charges,
    unique (merchant_id, charge_id)
);
comment on table core.application_fees is 'One row the part of a charge that a platform merchant takes.';
create index application_fees_by_application on core.application_fees (application_merchant_id, created_at desc);

create table core.topups (
    merchant_id text not null references core.merchants,
    topup_id text not null check (topup_id ~ '^tu_[A-Za-z0-9]+$'),
    amount_minor bigint not null check (amount_minor > 0),
    currency char(3) not null references core.currencies,
    status text not null check (status in ('pending', 'succeeded', 'failed', 'canceled', 'reversed')),
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (merchant_id, topup_id)
);
comment on table core.topups is 'One row money that a merchant adds to its own balance.';

create table core.currency_conversions (
    merchant_id text not null references core.merchants,
    currency_conversion_id text not null check (currency_conversion_id ~ '^fx_[A-Za-z0-9]+$'),
    from_currency char(3) not null references core.currencies,
    from_amount_minor bigint not null check (from_amount_minor > 0),
    to_currency char(3) not null references core.currencies,
    to_amount_minor bigint not null check (to_amount_minor > 0),
    fee_minor bigint not null check (fee_minor between 0 and to_amount_minor),
    rate numeric(20, 10) not null check (rate > 0),
    created_at timestamptz not null,
    primary key (merchant_id, currency_conversion_id),
    constraint currencies_differ check (from_currency <> to_currency)
);
comment on table core.currency_conversions is 'One row a conversion of a merchant''s balance at a rate, to_amount before the fee, rounded down to whole minor units.';

create table core.adjustments (
    merchant_id text not null references core.merchants,
    adjustment_id text not null check (adjustment_id ~ '^adj_[A-Za-z0-9]+$'),
    amount_minor bigint not null check (amount_minor <> 0),
    currency char(3) not null references core.currencies,
    reason text not null check (length(reason) >= 10),
    status text not null check (status in ('proposed', 'approved', 'rejected')),
    proposed_by text not null,
    decided_by text,
    decided_at timestamptz,
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (merchant_id, adjustment_id),
    constraint maker_is_not_checker check (decided_by <> proposed_by),
    constraint decided_has_who_and_when check (
        (status = 'proposed') = (decided_by is null) and (decided_by is null) = (decided_at is null)
    )
);
comment on table core.adjustments is 'One row a manual correction of a merchant''s balance: one operator proposes, another decides.';
create index adjustments_open on core.adjustments (created_at) where status = 'proposed';
