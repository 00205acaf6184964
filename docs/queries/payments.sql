-- Payments. Each query names the index that it needs; tests/systems/test_plans.py holds the planner to it.
-- The parameters are psql variables: \set merchant_id acct_x

-- charges-of-a-merchant: The charges of a merchant, newest first.
-- index: core.charges_recent
select * from core.charges
where merchant_id = :'merchant_id'
order by created_at desc
limit 100;

-- charges-of-a-customer: What a customer paid, newest first.
-- index: core.charges_by_customer
select *
from core.charges
where merchant_id = :'merchant_id' and customer_id = :'customer_id'
order by created_at desc
limit 100;

-- attempts-of-an-intent: Every attempt to pay an intent.
-- index: core.charges_by_intent
select * from core.charges
where merchant_id = :'merchant_id' and payment_intent_id = :'payment_intent_id';

-- intents-of-a-customer: The payments that a customer began.
-- index: core.payment_intents_by_customer
select * from core.payment_intents
where merchant_id = :'merchant_id' and customer_id = :'customer_id';

-- methods-of-a-customer: The payment methods that a customer stored.
-- index: core.payment_methods_by_customer
select * from core.payment_methods
where merchant_id = :'merchant_id' and customer_id = :'customer_id';

-- setups-of-a-customer: The attempts of a customer to store a payment method.
-- index: core.setup_intents_by_customer
select * from core.setup_intents
where merchant_id = :'merchant_id' and customer_id = :'customer_id';

-- refunds-of-a-charge: The refunds of a charge.
-- index: core.refunds_by_charge
select * from core.refunds
where merchant_id = :'merchant_id' and charge_id = :'charge_id';

-- refunds-to-follow-up: Refunds that the bank has not confirmed, oldest first.
-- index: core.refunds_open
select *
from core.refunds
where status in ('pending', 'requires_action') and created_at < :'until'
order by created_at
limit 100;

-- disputes-of-a-charge: The disputes of a charge; what is left to refund depends on them.
-- index: core.disputes_by_charge
select * from core.disputes
where merchant_id = :'merchant_id' and charge_id = :'charge_id';

-- disputes-due: Disputes whose evidence is due soon, most urgent first.
-- index: core.disputes_open
select *
from core.disputes
where status in ('needs_response', 'warning_needs_response') and evidence_due_at < :'until'
order by evidence_due_at
limit 100;

-- reviews-of-a-charge: The reviews of a charge.
-- index: core.reviews_by_charge
select * from core.reviews
where merchant_id = :'merchant_id' and charge_id = :'charge_id';

-- warnings-of-a-charge: The early fraud warnings of a charge.
-- index: core.early_fraud_warnings_by_charge
select * from core.early_fraud_warnings
where merchant_id = :'merchant_id' and charge_id = :'charge_id';

-- sessions-of-a-customer: The visits of a customer to the payment page.
-- index: core.checkout_sessions_by_customer
select * from core.checkout_sessions
where merchant_id = :'merchant_id' and customer_id = :'customer_id';

-- session-of-an-intent: The visit that a payment came from.
-- index: core.checkout_sessions_by_intent
select * from core.checkout_sessions
where merchant_id = :'merchant_id' and payment_intent_id = :'payment_intent_id';

-- sessions-to-expire: Open visits whose time is over.
-- index: core.checkout_sessions_open
select * from core.checkout_sessions
where status = 'open' and expires_at < :'until'
order by expires_at
limit 100;

-- customers-of-a-person: Where a person is a customer, for erasure and disclosure.
-- index: identity.customers_by_subject
select
    merchant_id,
    customer_id
from identity.customers
where subject_id = :'subject_id';

-- refunds-of-a-merchant: The refunds of a merchant, newest first.
-- index: core.refunds_recent
select * from core.refunds
where merchant_id = :'merchant_id'
order by created_at desc
limit 100;

-- disputes-of-a-merchant: The disputes of a merchant, newest first.
-- index: core.disputes_recent
select * from core.disputes
where merchant_id = :'merchant_id'
order by created_at desc
limit 100;

-- warnings-of-a-merchant: The early fraud warnings of a merchant, newest first.
-- index: core.early_fraud_warnings_recent
select * from core.early_fraud_warnings
where merchant_id = :'merchant_id'
order by created_at desc
limit 100;

-- customers-of-a-network-token: What a person is at all merchants, by the token that is the same everywhere.
-- index: core.customers_by_network_token
select * from core.customers
where network_token = :'network_token';

-- payment-methods-of-a-card: Where a card is kept, at all merchants.
-- index: core.payment_methods_by_fingerprint
select * from core.payment_methods
where fingerprint = :'fingerprint';
