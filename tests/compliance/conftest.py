"""A small warehouse file with staging models that hold no violation, for the gate to judge."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from payments.settings import settings

LINEAGE = (
    "false as is_deleted, '00000001/0000' as _position, now() as _source_at, 'b1' as _batch_id, 1::bigint as _sequence"
)
MOMENT = "timestamptz '2026-06-01 10:00:00+00'"

STAGING = {
    "stg_oltp__merchants": """
        'acct_1' as merchant_id, '5411' as mcc, 'Corner shop' as business_name, 'DE' as country,
        'EUR' as default_currency, 'active' as status
    """,
    "stg_oltp__customers": f"""
        'acct_1' as merchant_id, 'cus_1' as customer_id, 'mt_aa' as merchant_token, 'nt_bb' as network_token,
        'DE' as country, 'Bonn' as city, 'example.org' as email_domain, true as has_marketing_consent,
        {MOMENT} as consent_at, date '2036-06-01' as retention_until, {MOMENT} as created_at
    """,
    "stg_oltp__payment_methods": """
        'acct_1' as merchant_id, 'pm_1' as payment_method_id, 'cus_1' as customer_id, 'card' as type, 'visa' as brand,
        '4242' as last4, 12 as exp_month, 2030 as exp_year, 'credit' as funding, 'DE' as issuer_country,
        'fp_0123456789abcdef' as fingerprint
    """,
    "stg_oltp__payment_intents": """
        'acct_1' as merchant_id, 'pi_1' as payment_intent_id, 'cus_1' as customer_id, 'EUR' as currency,
        'succeeded' as status, 1000::bigint as amount_minor, 1000::bigint as amount_received_minor
    """,
    "stg_oltp__charges": f"""
        'acct_1' as merchant_id, 'ch_1' as charge_id, 'pi_1' as payment_intent_id, 'cus_1' as customer_id,
        'pm_1' as payment_method_id, 'dev_1' as device_id, 'EUR' as currency, 'succeeded' as status,
        cast(null as varchar) as failure_code, 'DE' as ip_country, 'Bonn' as ip_city,
        cast(0.1 as numeric(5, 4)) as anomaly_score, 1000::bigint as amount_minor,
        1000::bigint as amount_captured_minor, 0::bigint as amount_refunded_minor, {MOMENT} as created_at
    """,
    "stg_oltp__refunds": """
        'acct_1' as merchant_id, 're_1' as refund_id, 'ch_1' as charge_id, 'EUR' as currency, 'succeeded' as status,
        'duplicate' as reason, 100::bigint as amount_minor
    """,
    "stg_oltp__disputes": """
        'acct_1' as merchant_id, 'dp_1' as dispute_id, 'ch_1' as charge_id, 'EUR' as currency, 'won' as status,
        'fraudulent' as reason, 100::bigint as amount_minor
    """,
    "stg_oltp__balance_transaction_fees": """
        'acct_1' as merchant_id, 'txn_1' as balance_transaction_id, 'processing_fee' as type, 'EUR' as currency,
        30::bigint as amount_minor
    """,
    "stg_oltp__adjustments": """
        'acct_1' as merchant_id, 'adj_1' as adjustment_id, 'EUR' as currency, 'approved' as status,
        -250::bigint as amount_minor
    """,
    "stg_oltp__currency_conversions": """
        'acct_1' as merchant_id, 'fx_1' as currency_conversion_id, 'EUR' as from_currency, 'JPY' as to_currency,
        1000::bigint as from_amount_minor, 1634::bigint as to_amount_minor, 0::bigint as fee_minor
    """,
    "stg_oltp__coupons": """
        'acct_1' as merchant_id, 'co_1' as coupon_id, cast(null as varchar) as currency, 'once' as duration,
        2000 as percent_off_basis_points, cast(null as bigint) as amount_off_minor
    """,
    "stg_oltp__invoices": """
        'acct_1' as merchant_id, 'in_1' as invoice_id, 'cus_1' as customer_id, 'EUR' as currency, 'open' as status,
        'manual' as billing_reason, 1000::bigint as total_minor
    """,
    "stg_oltp__ledger_entries": """
        'acct_1' as merchant_id, 'lt_1' as ledger_transaction_id, 1 as entry_no,
        'acct_1:bank:EUR' as ledger_account_id, 'EUR' as currency, 'D' as side, 100::bigint as amount_minor
    """,
    "stg_documents__click_events": f"""
        'evt_1' as event_id, 'acct_1' as merchant_id, '/checkout' as page, '{{"items": 2}}' as properties,
        {MOMENT} as occurred_at
    """,
    "stg_documents__sessions": f"""
        'sess_1' as session_id, 'acct_1' as merchant_id, 'DE' as ip_country, 'mobile' as device_type,
        {MOMENT} as started_at
    """,
    "stg_documents__feedback": """
        'fb_1' as feedback_id, 'acct_1' as merchant_id, 'cus_1' as customer_id, 'review' as kind, 5 as rating
    """,
    "stg_documents__api_logs": """
        'req_1' as request_id, 'acct_1' as merchant_id, 'GET' as method, '/v1/charges' as path, 200 as status_code
    """,
    "stg_documents__error_logs": """
        'err_1' as error_id, 'req_1' as request_id, 'ledger' as service, 'timeout after 30 s @ledger' as message,
        '{"attempt": 2}' as context
    """,
    "stg_documents__webhook_deliveries": """
        'whd_1' as delivery_id, 'acct_1' as merchant_id, 'evt_1' as event_id, 'pending' as state, '[]' as attempts
    """,
    "stg_documents__audit_events": f"""
        'aud_1' as audit_event_id, 'acct_1' as merchant_id, 1::bigint as sequence, 'operator' as actor_type,
        'op_1' as actor_id, 'export' as action, 'allowed' as outcome, {MOMENT} as occurred_at,
        repeat('0', 64) as previous_hash, repeat('a1', 32) as hash
    """,
    "stg_documents__customer_profiles": """
        'cus_1' as customer_id, 'acct_1' as merchant_id, 'DE' as country, 'loyal' as segment, 5 as payment_count,
        '[]' as spent, '[]' as recent_charges
    """,
    "stg_documents__fraud_decisions": f"""
        'ch_1' as charge_id, 'acct_1' as merchant_id, 'EUR' as currency, 1000::bigint as amount_minor,
        0.2::double as score, 'allow' as decision, '["known_device"]' as reasons, '{{"payments": 3}}' as features,
        {MOMENT} as decided_at, 'genuine' as outcome, {MOMENT} as outcome_at
    """,
    "stg_documents__fraud_scores": """
        'fraud_1:k' as fraud_score_id, 'k' as payment_key, 'fraud_1' as model_version, 0.2::double as score,
        'allow' as decision
    """,
    "stg_files__transactions": f"""
        't1' as transaction_id, 'm1' as merchant_id, 'c1' as customer_id, 'USD' as currency, 'DE' as ip_country,
        'succeeded' as status, 0.5::double as anomaly_score, 0::bigint as amount_minor, {MOMENT} as transaction_at
    """,
}


@pytest.fixture
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A warehouse file that satisfies every rule, its good rows kept in schema good; state lies beside it."""
    home = tmp_path / "state of the platform"
    home.mkdir()
    path = home / "warehouse.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute("create schema dev_staging; create schema dev_reference; create schema good")
        for name, columns in STAGING.items():
            connection.execute(f"create table good.{name} as select {columns}, {LINEAGE}")
            connection.execute(f"create table dev_staging.{name} as select * from good.{name}")
        connection.execute("create table dev_reference.currencies as select unnest(['EUR', 'USD', 'JPY']) as currency")
        connection.execute("create table dev_reference.countries as select unnest(['DE', 'US', 'NA']) as country")
    monkeypatch.setenv("PAYMENTS_HOME", str(home))
    monkeypatch.setenv("PAYMENTS_WAREHOUSE", str(path))
    settings.cache_clear()
    yield path
    settings.cache_clear()
