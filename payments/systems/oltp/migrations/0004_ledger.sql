-- Double-entry ledger. One currency an account; entries are append-only; every transaction balances to zero per currency.
create schema ledger;

create table ledger.accounts (
    ledger_account_id text primary key,
    merchant_id text references core.merchants,
    code text not null check (code in (
        'card_receivable', 'bank', 'fee_revenue', 'dispute_clearing', 'merchant_pending', 'merchant_available'
    )),
    currency char(3) not null references core.currencies,
    normal_side char(1) not null check (normal_side in ('D', 'C')),
    debits_posted_minor bigint not null default 0 check (debits_posted_minor >= 0),
    credits_posted_minor bigint not null default 0 check (credits_posted_minor >= 0),
    entry_count bigint not null default 0 check (entry_count >= 0),
    created_at timestamptz not null default now(),
    unique (ledger_account_id, currency),
    constraint id_is_natural check (ledger_account_id = coalesce(merchant_id, 'platform') || ':' || code || ':' || currency)
);
comment on table ledger.accounts is 'One row a ledger account: owner (a merchant, or the platform where null), code and currency, with running totals.';

create table ledger.transactions (
    ledger_transaction_id text primary key check (ledger_transaction_id ~ '^lt_[A-Za-z0-9]+$'),
    kind text not null check (kind in ('charge', 'settlement', 'refund', 'dispute', 'dispute_won', 'dispute_lost')),
    source_id text not null,
    posted_at timestamptz not null,
    unique (kind, source_id)
);
comment on table ledger.transactions is 'One row a posting: at most one for each kind and source object.';

create table ledger.entries (
    ledger_transaction_id text not null references ledger.transactions,
    entry_no smallint not null check (entry_no > 0),
    ledger_account_id text not null,
    currency char(3) not null,
    side char(1) not null check (side in ('D', 'C')),
    amount_minor bigint not null check (amount_minor > 0),
    account_entry_no bigint not null check (account_entry_no > 0),
    balance_after_minor bigint not null,
    posted_at timestamptz not null,
    primary key (ledger_transaction_id, entry_no),
    foreign key (ledger_account_id, currency) references ledger.accounts (ledger_account_id, currency),
    unique (ledger_account_id, account_entry_no)
);
comment on table ledger.entries is 'One row a leg of a posting, with the balance of its account after it (positive on the account''s normal side).';
