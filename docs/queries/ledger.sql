-- The ledger. Each query names the index that it needs; tests/systems/test_plans.py holds the planner to it.

-- posting-of-an-object: The posting of a charge, refund or payout.
-- index: ledger.transactions_merchant_id_kind_source_id_key
select * from ledger.transactions
where merchant_id = :'merchant_id' and kind = :'kind' and source_id = :'source_id';

-- entries-of-an-account: The entries of an account, newest first.
-- index: ledger.entries_by_account
select *
from ledger.entries
where merchant_id = :'merchant_id' and ledger_account_id = :'ledger_account_id'
order by account_entry_no desc
limit 100;

-- balance-at-a-moment: The balance of an account at any moment: that after its last entry before.
-- index: ledger.entries_by_account
select balance_after_minor
from ledger.entries
where merchant_id = :'merchant_id' and ledger_account_id = :'ledger_account_id' and posted_at < :'until'
order by account_entry_no desc
limit 1;

-- entries-of-a-day: What was posted in a book on a day, to settle it. Lies within one month.
-- index: ledger.entries_in_time
select *
from ledger.entries
where merchant_id = :'merchant_id' and posted_at >= :'since' and posted_at < :'until';

-- hold-of-an-object: The hold of an authorized charge.
-- index: ledger.holds_merchant_id_source_id_key
select * from ledger.holds
where merchant_id = :'merchant_id' and source_id = :'source_id';

-- holds-to-expire: Authorizations that were not captured in time.
-- index: ledger.holds_pending
select * from ledger.holds
where status = 'pending' and expires_at <= :'until'
order by expires_at
limit 100;

-- postings-to-seal: The postings recorded by a range of database transactions.
-- index: ledger.transactions_by_xid
select
    merchant_id,
    ledger_transaction_id
from ledger.transactions
where recorded_xid >= :'first_xid' and recorded_xid < :'last_xid';
