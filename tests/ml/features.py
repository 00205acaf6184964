"""A small feature table of the warehouse's shape, made by integer arithmetic so that it is the same everywhere."""

from pathlib import Path

import duckdb

PAYMENTS = 4_000
START = "timestamptz '2026-01-01 00:00:00+00'"

# One payment every 20 minutes for 56 days. Every 40th is fraud, from a new device and mostly for a large amount, and
# becomes known five days later; every 90th attempt is declined.
TABLES = f"""
    create schema dev_features;
    create schema dev_marts;
    create table dev_features.feat_payments as
    with numbered as (
        select
            i,
            {START} + to_minutes(20 * i) as paid_at,
            i % 40 = 7 as is_fraud,
            (i * 7919) % 1000 as noise
        from range({PAYMENTS}) as numbers (i)
    ),
    valued as (
        select
            *,
            case when is_fraud and noise < 800 then 20000 + noise else 1000 + noise * 5 end::bigint as value_minor
        from numbered
    )
    select
        md5(i::varchar) as payment_key,
        'ch_' || i as payment_id,
        'oltp' as source,
        'acct_' || i % 7 as merchant_id,
        'customer_' || i % 211 as customer_key,
        'card_' || i % 307 as card_key,
        value_minor as amount_minor,
        'USD' as currency,
        epoch_us(paid_at) as order_key,
        paid_at,
        is_fraud,
        case when is_fraud then paid_at + interval 5 days end as fraud_known_at,
        value_minor as reporting_value_minor,
        case when i % 11 > 0 then noise / 100.0 end::double as value_to_customer_mean_30d,
        (noise % 3)::bigint as card_payments_1h,
        (noise % 2)::bigint as device_new_cards_1d,
        (noise % 4)::bigint as network_new_cards_1h,
        0::bigint as merchant_failed_1h,
        0.0::double as merchant_fraud_risk_7d,
        (is_fraud or noise % 20 = 0)::bigint as is_new_device,
        (noise % 30 = 0)::bigint as is_new_country
    from valued;
    create table dev_marts.fct_payments as
    select
        payment_key,
        case when split_part(payment_id, '_', 2)::integer % 90 = 0 then 'failed' else 'succeeded' end as status
    from dev_features.feat_payments;
"""


def write_warehouse(path: Path, change: str = "") -> None:
    """Write the tables to a new DuckDB file, then apply a change to them."""
    with duckdb.connect(str(path)) as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute(TABLES)
        if change:
            connection.execute(change)


def change_warehouse(path: Path, change: str) -> None:
    """Apply a change to a warehouse file."""
    with duckdb.connect(str(path)) as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute(change)
