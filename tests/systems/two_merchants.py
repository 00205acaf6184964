"""Two merchants with the same ids in every tenant table: whoever takes one's row for the other's is found out."""

from datetime import UTC, datetime

import psycopg

OURS, THEIRS = "acct_ours", "acct_theirs"
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)

_PARTIES = """
insert into core.merchants (
    merchant_id, business_name, mcc, country, default_currency, created_at, updated_at
) values (%(m)s, 'Business of ' || %(m)s, '5812', 'FR', 'EUR', %(t)s, %(t)s);
insert into core.customers (
    merchant_id, customer_id, merchant_token, network_token, country, city, email_domain, has_marketing_consent,
    consent_at, retention_until, created_at, updated_at
) values (%(m)s, 'cus_1', 'mt_' || %(m)s, 'nt_1', 'FR', 'Lyon', 'example.org', true, %(t)s, '2030-01-01', %(t)s, %(t)s);
insert into vault.subjects (subject_id, key_id, wrapped_key)
values (md5(%(m)s)::uuid, 'key-1', convert_to('wrapped key of ' || %(m)s, 'UTF8'));
insert into identity.customers (
    merchant_id, customer_id, subject_id, name_encrypted, email_encrypted, phone_encrypted, address_encrypted
) values (%(m)s, 'cus_1', md5(%(m)s)::uuid, '\\x01', '\\x02', '\\x03', '\\x04');
insert into core.payment_methods (
    merchant_id, payment_method_id, customer_id, type, brand, last4, exp_month, exp_year, funding, issuer_country,
    fingerprint, created_at, updated_at
) values (%(m)s, 'pm_1', 'cus_1', 'card', 'visa', '4242', 12, 2030, 'credit', 'FR', 'fp_1', %(t)s, %(t)s);
insert into core.products (merchant_id, product_id, product_name, created_at, updated_at)
values (%(m)s, 'prod_1', 'Coffee', %(t)s, %(t)s);
insert into core.prices (
    merchant_id, price_id, product_id, currency, unit_amount_minor, billing_interval, interval_count, created_at,
    updated_at
) values (%(m)s, 'price_1', 'prod_1', 'EUR', 900, 'month', 1, %(t)s, %(t)s);
insert into core.coupons (
    merchant_id, coupon_id, percent_off_basis_points, duration, created_at, updated_at
) values (%(m)s, 'co_1', 1000, 'forever', %(t)s, %(t)s);
insert into core.setup_intents (
    merchant_id, setup_intent_id, customer_id, payment_method_id, status, created_at, updated_at
) values (%(m)s, 'seti_1', 'cus_1', 'pm_1', 'requires_confirmation', %(t)s, %(t)s);
insert into core.checkout_sessions (
    merchant_id, checkout_session_id, customer_id, mode, status, amount_total_minor, currency, expires_at, created_at,
    updated_at
) values (%(m)s, 'cs_1', 'cus_1', 'payment', 'open', 1000, 'EUR', %(t)s, %(t)s, %(t)s);
"""

# In each %(o)s is the other merchant.
_EVENTS = """
select core.create_topup(%(m)s, 100000, 'EUR', 'tu_1', %(t)s);
select core.create_payment_intent(%(m)s, 'cus_1', 5000, 'EUR', 'pm_1', 'pi_1', %(t)s, 'automatic', %(o)s, 100);
select core.confirm_payment_intent(%(m)s, 'pi_1', p_charge_id => 'ch_1', p_confirmed_at => %(t)s);
update core.checkout_sessions set payment_intent_id = 'pi_1' where merchant_id = %(m)s;
select core.create_payment_intent(%(m)s, 'cus_1', 4000, 'EUR', 'pm_1', 'pi_2', %(t)s, 'manual');
select core.confirm_payment_intent(%(m)s, 'pi_2', p_charge_id => 'ch_2', p_confirmed_at => %(t)s);
select core.refund_charge(%(m)s, 'ch_1', 500, p_refund_id => 're_1', p_refunded_at => %(t)s, p_is_settled => false);
select core.open_dispute(
    %(m)s, 'ch_1', 'fraudulent', 1000, 1500, p_dispute_id => 'dp_1', p_opened_at => %(t)s
);
insert into core.reviews (merchant_id, review_id, charge_id, opened_reason, created_at, updated_at)
values (%(m)s, 'prv_1', 'ch_1', 'rule', %(t)s, %(t)s);
insert into core.early_fraud_warnings (
    merchant_id, early_fraud_warning_id, charge_id, fraud_type, is_actionable, created_at
) values (%(m)s, 'issfr_1', 'ch_1', 'misc', true, %(t)s);
select core.create_subscription(%(m)s, 'cus_1', 'price_1', 1, 'pm_1', 'co_1', 'sub_1', %(t)s);
select core.bill_subscription(%(m)s, 'sub_1', null, %(t)s);
select core.create_invoice(
    %(m)s, 'cus_1', 'EUR', '[{"description": "Machine", "amount_minor": 2000}]', p_invoice_id => 'in_1',
    p_created_at => %(t)s
);
select core.finalize_invoice(%(m)s, 'in_1', %(t)s);
select core.credit_invoice(%(m)s, 'in_1', 300, 'order_change', 'cn_1', %(t)s);
select core.settle_day(%(m)s, 'EUR', '2026-03-10');
select core.convert_currency(%(m)s, 'EUR', 1000, 'USD', 1.1, 100, 'fx_1', %(t)s);
select core.create_transfer(%(m)s, %(o)s, 700, 'EUR', 'tr_1', %(t)s);
select core.create_payout(%(m)s, 'EUR', null, 'po_1', %(later)s);
select core.propose_adjustment(%(m)s, 250, 'EUR', 'goodwill after an outage', 'adj_1');
select set_config('app.merchant_id', %(m)s, false);
select api.call(%(m)s, 'key-1', 'topups.create', '{"amount_minor": 100, "currency": "EUR"}');
select set_config('app.merchant_id', '', false);
"""

_ONCE = """
select ledger.seal();
call ledger.close_period('2026-02-01');
"""


def open_two_merchants(connection: psycopg.Connection) -> None:
    """Let everything happen at both merchants, so that each table holds rows of both.

    Args:
        connection: autocommit, of a superuser, to a store that holds reference data only.
    """
    parameters = {
        ours: {"m": ours, "o": theirs, "t": NOON, "later": NOON.replace(day=20)}
        for ours, theirs in ((OURS, THEIRS), (THEIRS, OURS))
    }
    for script in (_PARTIES, _EVENTS):
        for merchant in parameters.values():
            _run(connection, script, merchant)
    _run(connection, _ONCE, {})


def _run(connection: psycopg.Connection, script: str, parameters: dict[str, object]) -> None:
    for statement in filter(None, map(str.strip, script.split(";\n"))):
        connection.execute(statement.encode(), parameters or None)
