-- A merchant's balance. Each query names the index that it needs; tests/systems/test_plans.py holds the planner to it.

-- movements-of-a-balance: The balance transactions of a merchant and currency, newest first.
-- index: core.balance_transactions_recent
select *
from core.balance_transactions
where merchant_id = :'merchant_id' and currency = :'currency'
order by created_at desc
limit 100;

-- movement-of-an-object: The balance transaction of a charge, refund or payout.
-- index: core.balance_transactions_merchant_id_type_source_id_key
select *
from core.balance_transactions
where merchant_id = :'merchant_id' and type = :'type' and source_id = :'source_id';

-- movements-not-paid-out: What an automatic payout would pay now.
-- index: core.balance_transactions_recent
select b.*
from core.balance_transactions as b
where
    b.merchant_id = :'merchant_id'
    and b.currency = :'currency'
    and b.available_at <= :'until'
    and not exists (
        select from core.payout_balance_transactions as p
        where p.merchant_id = b.merchant_id and p.balance_transaction_id = b.balance_transaction_id
    )
order by b.created_at desc
limit 100;

-- payouts-of-a-merchant: The payouts of a merchant, newest first.
-- index: core.payouts_recent
select * from core.payouts
where merchant_id = :'merchant_id'
order by created_at desc
limit 100;

-- movements-of-a-payout: What a payout pays out.
-- index: core.payout_balance_transactions_by_payout
select * from core.payout_balance_transactions
where merchant_id = :'merchant_id' and payout_id = :'payout_id';

-- payouts-to-follow-up: Payouts that should have arrived.
-- index: core.payouts_under_way
select *
from core.payouts
where status in ('pending', 'in_transit') and arrival_date < :'day'
order by arrival_date
limit 100;

-- transfers-from: What a merchant sent to others, newest first.
-- index: core.transfers_recent
select * from core.transfers
where merchant_id = :'merchant_id'
order by created_at desc
limit 100;

-- transfers-to: What a merchant received from others, newest first.
-- index: core.transfers_by_destination
select *
from core.transfers
where destination_merchant_id = :'destination_merchant_id'
order by created_at desc
limit 100;

-- fees-of-an-application: What a platform merchant took of the charges of others, newest first.
-- index: core.application_fees_by_application
select *
from core.application_fees
where application_merchant_id = :'application_merchant_id'
order by created_at desc
limit 100;

-- adjustments-to-decide: Manual corrections that wait for a second operator.
-- index: core.adjustments_open
select * from core.adjustments
where status = 'proposed'
order by created_at
limit 100;
