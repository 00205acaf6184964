-- Double-entry ledger. Each merchant has a book of its own, which holds the merchant's accounts and the platform's share in
-- them: every transaction lies within one book, so no account is shared by all payments and a book moves to another machine
-- whole. Money between books passes through transfer_clearing of both, in one database transaction.
create schema ledger;

create table ledger.account_codes (
    code text primary key,
    normal_side char(1) not null check (normal_side in ('D', 'C')),
    is_protected boolean not null,
    is_spread boolean not null,
    is_clearing boolean not null,
    is_merchants boolean not null,
    description text not null,
    unique (code, normal_side, is_protected)
);
comment on table ledger.account_codes is 'The chart of accounts. Protected: never below zero, counting what is pending. Spread: may be split into buckets. Clearing: returns to zero.';
comment on column ledger.account_codes.is_merchants is 'Whether the account belongs to the merchant; the others are the platform''s within the merchant''s book.';

insert into ledger.account_codes
(code, normal_side, is_protected, is_spread, is_clearing, is_merchants, description) values
('card_receivable', 'D', true, true, true, false, 'What card networks and banks owe for captured charges.'),
('bank', 'D', false, false, false, false, 'Cash at the bank that this book accounts for.'),
('invoice_receivable', 'D', true, false, true, false, 'What customers owe for open invoices.'),
('invoice_clearing', 'C', true, false, true, false, 'The other side of invoice_receivable until the invoice is settled.'),
('merchant_pending', 'C', true, true, true, true, 'The merchant''s money that is not available yet.'),
('merchant_available', 'C', false, false, false, true, 'The merchant''s money; below zero the merchant owes.'),
('fee_revenue', 'C', false, true, false, false, 'Fees that the platform earned.'),
('refund_clearing', 'C', true, false, true, false, 'Refunds on their way to customers.'),
('dispute_clearing', 'C', true, false, true, false, 'Disputed money until the dispute is decided.'),
('payout_in_transit', 'C', true, false, true, false, 'Payouts on their way to the merchant''s bank.'),
('transfer_clearing', 'C', false, false, true, false, 'Money between books; zero over all books.'),
('fx_liquidity', 'C', false, false, false, false, 'The platform''s side of currency conversions.'),
('suspense', 'C', false, false, false, false, 'The other side of manual adjustments.');

create table ledger.accounts (
    merchant_id text not null references core.merchants,
    ledger_account_id text not null,
    code text not null,
    currency char(3) not null references core.currencies,
    bucket smallint not null default 0 check (bucket between 0 and 63),
    normal_side char(1) not null,
    is_protected boolean not null,
    debits_posted_minor bigint not null default 0 check (debits_posted_minor >= 0),
    credits_posted_minor bigint not null default 0 check (credits_posted_minor >= 0),
    debits_pending_minor bigint not null default 0 check (debits_pending_minor >= 0),
    credits_pending_minor bigint not null default 0 check (credits_pending_minor >= 0),
    entry_count bigint not null default 0 check (entry_count >= 0),
    created_at timestamptz not null default now(),
    primary key (merchant_id, ledger_account_id),
    unique (merchant_id, ledger_account_id, currency),
    foreign key (code, normal_side, is_protected) references ledger.account_codes (code, normal_side, is_protected),
    constraint id_is_natural check (
        ledger_account_id
        = merchant_id || ':' || code || ':' || currency || case when bucket > 0 then ':' || bucket else '' end
    ),
    constraint never_below_zero check (
        not is_protected
        or case normal_side
            when 'D' then credits_posted_minor + credits_pending_minor <= debits_posted_minor
            else debits_posted_minor + debits_pending_minor <= credits_posted_minor
        end
    )
) partition by hash (merchant_id);
call core.partition_by_merchant('ledger.accounts');
comment on table ledger.accounts is 'One row a ledger account, or a bucket of it: book, code, currency, with totals of what is posted and pending.';

create table ledger.transactions (
    merchant_id text not null references core.merchants,
    ledger_transaction_id text not null check (ledger_transaction_id ~ '^lt_[A-Za-z0-9]+$'),
    kind text not null check (kind in (
        'charge', 'application_fee', 'application_fee_in', 'settlement', 'refund', 'refund_settled', 'refund_failed',
        'dispute', 'dispute_won', 'dispute_lost', 'payout', 'payout_paid', 'payout_failed', 'transfer', 'transfer_in',
        'topup', 'fx', 'invoice', 'invoice_settled', 'adjustment', 'reversal'
    )),
    source_id text not null,
    posted_at timestamptz not null,
    recorded_at timestamptz not null default clock_timestamp(),
    recorded_xid xid8 not null default pg_current_xact_id(),
    primary key (merchant_id, ledger_transaction_id),
    unique (merchant_id, kind, source_id)
) partition by hash (merchant_id);
call core.partition_by_merchant('ledger.transactions');
comment on table ledger.transactions is 'One row a posting in the book of one merchant: at most one for each kind and source object. A reversal has the reversed posting as its source.';
comment on column ledger.transactions.posted_at is 'When it happened; recorded_at is when the ledger learned of it.';
comment on column ledger.transactions.recorded_xid is 'The database transaction that recorded it: seals cover ranges of them.';
create index transactions_by_xid on ledger.transactions (recorded_xid);

create table ledger.entries (
    merchant_id text not null,
    ledger_transaction_id text not null,
    entry_no smallint not null check (entry_no > 0),
    ledger_account_id text not null,
    currency char(3) not null,
    side char(1) not null check (side in ('D', 'C')),
    amount_minor bigint not null check (amount_minor > 0),
    account_entry_no bigint not null check (account_entry_no > 0),
    balance_after_minor bigint not null,
    posted_at timestamptz not null,
    primary key (merchant_id, ledger_transaction_id, entry_no, posted_at),
    foreign key (merchant_id, ledger_transaction_id) references ledger.transactions,
    foreign key (merchant_id, ledger_account_id, currency)
    references ledger.accounts (merchant_id, ledger_account_id, currency)
) partition by range (posted_at);
create table ledger.entries_default partition of ledger.entries default;
comment on table ledger.entries is 'One row a leg of a posting, with the balance of its account after it (positive on the account''s normal side). Partitioned by month.';
create index entries_by_account on ledger.entries (merchant_id, ledger_account_id, account_entry_no desc);
create index entries_in_time on ledger.entries (merchant_id, posted_at);

create table ledger.holds (
    merchant_id text not null,
    hold_id text not null check (hold_id ~ '^hold_[A-Za-z0-9]+$'),
    source_id text not null,
    debit_account_id text not null,
    credit_account_id text not null,
    currency char(3) not null,
    amount_minor bigint not null check (amount_minor > 0),
    posted_minor bigint not null default 0 check (posted_minor between 0 and amount_minor),
    status text not null default 'pending' check (status in ('pending', 'posted', 'voided', 'expired')),
    version bigint not null default 1 check (version > 0),
    created_at timestamptz not null,
    expires_at timestamptz not null,
    resolved_at timestamptz,
    updated_at timestamptz not null,
    primary key (merchant_id, hold_id),
    unique (merchant_id, source_id),
    foreign key (merchant_id, debit_account_id, currency)
    references ledger.accounts (merchant_id, ledger_account_id, currency),
    foreign key (merchant_id, credit_account_id, currency)
    references ledger.accounts (merchant_id, ledger_account_id, currency),
    constraint resolved_has_moment check ((status = 'pending') = (resolved_at is null)),
    constraint posted_has_amount check ((status = 'posted') = (posted_minor > 0))
) partition by hash (merchant_id);
call core.partition_by_merchant('ledger.holds');
comment on table ledger.holds is 'One row an amount reserved between two accounts (an authorization), until it is posted in whole or part, voided or expired, once.';
create index holds_pending on ledger.holds (expires_at) where status = 'pending';

create table ledger.closed_periods (
    period date primary key check (period = date_trunc('month', period)),
    closed_by text not null default session_user,
    closed_at timestamptz not null default clock_timestamp()
);
comment on table ledger.closed_periods is 'One row a month (UTC) that is closed: nothing posts into it any more.';

create table ledger.seals (
    seal_no bigint primary key check (seal_no > 0),
    from_xid xid8 not null,
    to_xid xid8 not null,
    transaction_count bigint not null check (transaction_count > 0),
    content_hash bytea not null check (length(content_hash) = 32),
    previous_hash bytea not null check (length(previous_hash) = 32),
    seal_hash bytea not null check (length(seal_hash) = 32),
    sealed_at timestamptz not null default clock_timestamp(),
    check (from_xid < to_xid)
);
comment on table ledger.seals is 'One row a link of the hash chain: the postings recorded by database transactions from from_xid up to before to_xid.';
