"""What the copies in the document store say of customers, merchants and cards: asked of the operational store by index.

Each function takes the entities to ask for, with the version that the answer will have, and returns their documents and
those that are gone. Windows end at a moment of the source (``as_of``), not at the clock: ``refresh_at`` is when the
first row leaves a window or comes into one, which changes a document although nobody wrote.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row

from payments.systems.oltp.migrations import SEEDS

Document = dict[str, Any]
Row = dict[str, Any]
CustomerKey = tuple[str, str]
"""Merchant and customer."""
RECENT_CHARGES = 10
WINDOW_DAYS = (1, 7, 30)
LABEL_DELAY_DAYS = 7
"""How long a fraud label takes to arrive: the variable ``label_delay_days`` of the feature model."""
_KINDS = ("payment", "failure", "refund", "dispute", "warning")


@dataclass
class Copied:
    """Documents of a collection, and the ids of those that are gone with the version of their end."""

    documents: list[Document] = field(default_factory=list)
    gone: dict[str, int] = field(default_factory=dict)


def prepare_connection(connection: psycopg.Connection) -> None:
    """Give a connection the book rates of the feature model, as a temporary table."""
    with (SEEDS / "exchange_rates.csv").open(encoding="utf-8") as file:
        rates = [(row["currency"], row["valid_from"], row["rate_to_usd"]) for row in csv.DictReader(file)]
    currencies, days, values = (list(column) for column in zip(*rates, strict=True))
    connection.execute(
        """
        create temp table if not exists book_rates (
            currency text, valid_from date, rate numeric(20, 8), primary key (currency, valid_from)
        )
        """
    )
    connection.execute(
        "insert into book_rates select * from unnest(%s::text[], %s::date[], %s::numeric[]) on conflict do nothing",
        (currencies, days, values),
    )
    connection.execute("analyze book_rates")


def customer_profiles(connection: psycopg.Connection, asked: Mapping[CustomerKey, int]) -> Copied:
    """Return the profile of each customer. ``segment`` is the word for a new one: the warehouse owns it."""
    keys = dict(zip(("merchants", "customers"), _columns(asked), strict=True))
    spent: dict[CustomerKey, list[Row]] = {}
    for row in _ask(connection, _SPENT, keys):
        spent.setdefault((row["merchant_id"], row["customer_id"]), []).append(row)
    recent: dict[CustomerKey, list[Row]] = {}
    for row in _ask(connection, _RECENT, {**keys, "most": RECENT_CHARGES}):
        recent.setdefault((row.pop("merchant_id"), row.pop("customer_id")), []).append(row)
    customers = {(row["merchant_id"], row["customer_id"]): row for row in _ask(connection, _CUSTOMERS, keys)}
    copied = Copied()
    for key, version in asked.items():
        customer, rows = customers.get(key), spent.get(key, [])
        if customer is None:
            copied.gone[key[1]] = version
            continue
        paid = [row for row in rows if row["payment_count"]]
        copied.documents.append(
            {
                "_id": key[1],
                "merchant_id": key[0],
                "version": version,
                "country": customer["country"],
                "segment": "new",
                "payment_count": sum(row["payment_count"] for row in paid),
                "first_paid_at": min((row["first_paid_at"] for row in paid), default=None),
                "last_paid_at": max((row["last_paid_at"] for row in paid), default=None),
                "spent": [{name: row[name] for name in ("currency", "amount_minor", "payment_count")} for row in paid],
                "recent_charges": recent.get(key, []),
                "updated_at": max([customer["updated_at"], *(row["updated_at"] for row in rows)]),
                "schema_version": 1,
            }
        )
    return copied


def merchant_risk(connection: psycopg.Connection, asked: Mapping[str, int], as_of: datetime) -> Copied:
    """Return what happened at each merchant in the last 1, 7 and 30 days, rates in hundredths of a percent.

    What failed is a share of what was tried, what was refunded, disputed or warned of one of what was paid within the
    same days; without any there is no rate.
    """
    values = {"merchants": list(asked), "as_of": as_of}
    found: dict[str, list[Row]] = {}
    for row in _ask(connection, _RISK, values):
        found.setdefault(row["merchant_id"], []).append(row)
    statuses = {row["merchant_id"]: row["status"] for row in _ask(connection, _MERCHANTS, values)}
    copied = Copied()
    for merchant_id, version in asked.items():
        if merchant_id not in statuses:
            copied.gone[merchant_id] = version
            continue
        rows = found.get(merchant_id, [])
        copied.documents.append(
            {
                "_id": merchant_id,
                "version": version,
                "status": statuses[merchant_id],
                "windows": [_window(days, rows) for days in WINDOW_DAYS],
                "as_of": as_of,
                "refresh_at": _earliest(row["refresh_at"] for row in rows),
                "schema_version": 1,
            }
        )
    return copied


def _window(days: int, rows: Sequence[Row]) -> Document:
    by_currency: dict[str, Document] = {}
    totals = dict.fromkeys(_KINDS, 0)
    for row in rows:
        count = row[f"count_{days}"]
        if not count:
            continue
        kind = row["kind"]
        empty = {f"{each}_{what}": 0 for each in _KINDS for what in ("count", "minor")}
        entry = by_currency.setdefault(row["currency"], {"currency": row["currency"], **empty})
        entry[f"{kind}_count"] += count
        entry[f"{kind}_minor"] += row[f"minor_{days}"]
        totals[kind] += count
    paid = totals["payment"]
    return {
        "days": days,
        "payment_count": paid,
        "failure_rate": basis_points(totals["failure"], paid + totals["failure"]),
        "refund_rate": basis_points(totals["refund"], paid),
        "dispute_rate": basis_points(totals["dispute"], paid),
        "warning_rate": basis_points(totals["warning"], paid),
        "by_currency": [by_currency[currency] for currency in sorted(by_currency)],
    }


def basis_points(part: int, whole: int) -> int | None:
    """Return a share in hundredths of a percent, rounded half up; None of nothing."""
    return (part * 20_000 + whole) // (2 * whole) if whole else None


def online_features(connection: psycopg.Connection, kind: str, asked: Mapping[str, int], as_of: datetime) -> Copied:
    """Return the windows of the feature model as the next payment finds them at ``as_of``, to the second.

    ``kind`` is customer (asked for by network token), card (fingerprint) or merchant. Values are without the next
    payment; those of money are in minor units of the reporting currency, at the book rate of each payment's day.
    """
    values = {"entities": list(asked), "as_of": as_of, "label_delay": LABEL_DELAY_DAYS * 86_400}
    found = {row["entity"]: row for row in _ask(connection, _FEATURES[kind], values)}
    copied = Copied()
    for entity, version in asked.items():
        document_id = f"{kind}:{entity}"
        if entity not in found:
            copied.gone[document_id] = version
            continue
        row = dict(found[entity])
        del row["entity"]
        copied.documents.append(
            {
                "_id": document_id,
                "version": version,
                "last_paid_at": _moment(row.pop("last_second")),
                "refresh_at": _moment(row.pop("refresh_second")),
                "as_of": as_of,
                "feature_values": row,
                "schema_version": 1,
            }
        )
    return copied


def tokens_of_customers(connection: psycopg.Connection, asked: Mapping[CustomerKey, int]) -> dict[str, int]:
    """Return the network tokens of customers, each with the highest number that one of its customers came with."""
    found = connection.execute(_CUSTOMER_TOKENS, [*_columns(asked), list(asked.values())])
    return dict(found.fetchall())


def tokens_of_charges(
    connection: psycopg.Connection, asked: Mapping[CustomerKey, int]
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the network tokens and the card fingerprints of charges, each with the highest number of its charges."""
    found: tuple[dict[str, int], dict[str, int]] = ({}, {})
    for token, fingerprint, number in connection.execute(_CHARGE_TOKENS, [*_columns(asked), list(asked.values())]):
        for numbers, key in zip(found, (token, fingerprint), strict=True):
            numbers[key] = max(number, numbers.get(key, 0))
    return found


def _columns(keys: Mapping[CustomerKey, int]) -> tuple[list[str], list[str]]:
    return [key[0] for key in keys], [key[1] for key in keys]


def _ask(connection: psycopg.Connection, query: str, values: Mapping[str, Any]) -> list[Row]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode(), values).fetchall()


def _earliest(moments: Any) -> datetime | None:
    return min((moment for moment in moments if moment is not None), default=None)


def _moment(second: int | None) -> datetime | None:
    return None if second is None else _EPOCH + timedelta(seconds=second)


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")

_ASKED_CUSTOMERS = """
    asked as (
        select merchant_id, customer_id
        from unnest(%(merchants)s::text[], %(customers)s::text[]) as asked (merchant_id, customer_id)
    )
"""

_CUSTOMERS = f"""
    with {_ASKED_CUSTOMERS}
    select merchant_id, customer_id, country, updated_at
    from asked
    inner join core.customers using (merchant_id, customer_id)
"""

_SPENT = f"""
    with {_ASKED_CUSTOMERS}
    select
        merchant_id,
        customer_id,
        currency,
        count(*) filter (where status = 'succeeded') as payment_count,
        (sum(amount_captured_minor) filter (where status = 'succeeded'))::bigint as amount_minor,
        min(charges.created_at) filter (where status = 'succeeded') as first_paid_at,
        max(charges.created_at) filter (where status = 'succeeded') as last_paid_at,
        max(charges.updated_at) as updated_at
    from asked
    inner join core.charges using (merchant_id, customer_id)
    group by merchant_id, customer_id, currency
    order by merchant_id, customer_id, currency
"""

_RECENT = f"""
    with {_ASKED_CUSTOMERS}
    select
        asked.merchant_id,
        asked.customer_id,
        recent.charge_id,
        recent.amount_minor,
        recent.currency,
        recent.status,
        recent.created_at
    from asked
    cross join lateral (
        select charge_id, amount_minor, currency, status, created_at
        from core.charges
        where charges.merchant_id = asked.merchant_id and charges.customer_id = asked.customer_id
        order by created_at desc, charge_id desc
        limit %(most)s
    ) as recent
    order by asked.merchant_id, asked.customer_id, recent.created_at desc, recent.charge_id desc
"""

_MERCHANTS = "select merchant_id, status from core.merchants where merchant_id = any(%(merchants)s)"

_LEFT_OR_COMING = "\n".join(
    f"""
        count(*) filter (where {inside}) as count_{days},
        (sum(amount_minor) filter (where {inside}))::bigint as minor_{days},
        min(created_at) filter (where {inside}) + interval '{days * 24} hours' as leaves_{days},
    """
    for days in WINDOW_DAYS
    for inside in [f"created_at <= %(as_of)s and created_at > %(as_of)s::timestamptz - interval '{days * 24} hours'"]
)

_RISK = f"""
    with asked as (
        select merchant_id from unnest(%(merchants)s::text[]) as merchant_id
    ),
    events as (
        select
            merchant_id,
            case status when 'succeeded' then 'payment' else 'failure' end as kind,
            currency,
            case status when 'succeeded' then amount_captured_minor else amount_minor end as amount_minor,
            created_at
        from asked
        inner join core.charges using (merchant_id)
        where status <> 'pending'

        union all

        select merchant_id, 'refund', currency, amount_minor, created_at
        from asked
        inner join core.refunds using (merchant_id)
        where status not in ('failed', 'canceled')

        union all

        select merchant_id, 'dispute', currency, amount_minor, created_at
        from asked
        inner join core.disputes using (merchant_id)
        where status not in ('warning_needs_response', 'warning_under_review', 'warning_closed', 'prevented')

        union all

        select merchant_id, 'warning', charges.currency, charges.amount_captured_minor, warnings.created_at
        from asked
        inner join core.early_fraud_warnings as warnings using (merchant_id)
        inner join core.charges using (merchant_id, charge_id)
    ),
    counted as (
        select
            merchant_id,
            kind,
            currency,
            {_LEFT_OR_COMING}
            min(created_at) filter (where created_at > %(as_of)s) as comes
        from events
        where created_at > %(as_of)s::timestamptz - interval '720 hours'
        group by merchant_id, kind, currency
    )
    select *, least(leaves_1, leaves_7, leaves_30, comes) as refresh_at
    from counted
"""

_CUSTOMER_TOKENS = """
    with asked as (
        select merchant_id, customer_id, number
        from unnest(%s::text[], %s::text[], %s::bigint[]) as asked (merchant_id, customer_id, number)
    )
    select network_token, max(number)
    from asked
    inner join core.customers using (merchant_id, customer_id)
    group by network_token
"""

_CHARGE_TOKENS = """
    with asked as (
        select merchant_id, charge_id, number
        from unnest(%s::text[], %s::text[], %s::bigint[]) as asked (merchant_id, charge_id, number)
    )
    select network_token, fingerprint, max(number)
    from asked
    inner join core.charges using (merchant_id, charge_id)
    inner join core.customers using (merchant_id, customer_id)
    inner join core.payment_methods using (merchant_id, payment_method_id)
    group by network_token, fingerprint
"""

_CLOCK = """
    clock as (
        select extract(epoch from date_trunc('second', %(as_of)s::timestamptz))::bigint as now_second
    )
"""

# The value of a payment in the reporting currency (the dollar), half to even as in the macro convert_minor; of a
# currency without a rate the amount stands for itself. Before the first fixing that one holds, after the last one that.
_SEEN = """
    known_days as (
        select min(valid_from) as first_day, max(valid_from) as last_day from book_rates
    ),
    valued as (
        select
            charges.*,
            extract(epoch from date_trunc('second', charges.created_at))::bigint as paid_second,
            (charges.status = 'failed')::integer as failed,
            charges.amount_minor * (rates.rate * 100000000)::numeric(38, 0) as numerator,
            power(10::numeric, 8 + currencies.exponent - 2)::numeric(38, 0) as denominator
        from charges
        inner join core.currencies on charges.currency = currencies.currency
        cross join known_days
        left join lateral (
            select rate
            from book_rates
            where
                book_rates.currency = charges.currency
                and valid_from <= least(
                    greatest((charges.created_at at time zone 'UTC')::date, known_days.first_day), known_days.last_day
                )
            order by valid_from desc
            limit 1
        ) as rates on true
    ),
    seen as (
        select
            *,
            case
                when numerator is null then amount_minor
                else (
                    div(numerator, denominator) + case
                        when 2 * mod(numerator, denominator) > denominator then 1
                        when 2 * mod(numerator, denominator) = denominator then mod(div(numerator, denominator), 2)
                        else 0
                    end
                )::bigint
            end as value_minor
        from valued
    )
"""

# A label counts from the second after it became known; an inquiry or a prevented dispute is none.
_LABEL = """
    select
        extract(epoch from date_trunc('second', min(created_at)))::bigint
        + case when min(created_at) > date_trunc('second', min(created_at)) then 1 else 0 end as label_second
    from core.disputes
    where
        disputes.merchant_id = charges.merchant_id
        and disputes.charge_id = charges.charge_id
        and reason = 'fraudulent'
        and status not in ('warning_needs_response', 'warning_under_review', 'warning_closed', 'prevented')
"""


def _last(seconds: int, *conditions: str) -> str:
    """Return the SQL filter of the payments in the last seconds before now of which the conditions hold."""
    return f"filter (where {' and '.join(('is_past', f'paid_second > now_second - {seconds}', *conditions))})"


def _leaves_or_comes(*lengths: int) -> str:
    """Return SQL for when the first payment leaves each of the windows (seconds), and when the next one comes."""
    leaves = [f"min(paid_second) {_last(length)} + {length}" for length in lengths]
    return ", ".join([*leaves, "min(paid_second) filter (where not is_past) + 1"])


def _or_zero(*counts: str) -> str:
    """Return SQL for counts of an entity that may have no row to count."""
    return ", ".join(f"coalesce({count}, 0) as {count}" for count in counts)


_CUSTOMER_FEATURES = f"""
    with persons as (
        select asked.entity, customers.merchant_id, customers.customer_id
        from unnest(%(entities)s::text[]) as asked (entity)
        inner join core.customers on asked.entity = customers.network_token
    ),
    charges as (
        select persons.entity, charges.*
        from persons
        inner join core.charges using (merchant_id, customer_id)
    ),
    {_SEEN},
    {_CLOCK},
    past as (
        select
            charges.*,
            label_second,
            now_second,
            created_at <= %(as_of)s as is_past,
            row_number() over (partition by entity, merchant_id order by created_at, charge_id) = 1 as is_new_merchant,
            count(*) over before as earlier_count,
            sum(value_minor) over before as earlier_sum
        from seen as charges
        cross join clock
        cross join lateral ({_LABEL}) as label
        window before as (
            partition by entity order by created_at, charge_id rows between unbounded preceding and 1 preceding
        )
    ),
    flagged as (
        select *, earlier_count > 0 and value_minor * earlier_count > 3 * earlier_sum as is_large from past
    ),
    counted as (
        select
            entity,
            count(*) {_last(3_600)} as payments_1h,
            count(*) {_last(86_400)} as payments_1d,
            count(*) {_last(604_800)} as payments_7d,
            count(*) {_last(2_592_000)} as payments_30d,
            coalesce(sum(value_minor) {_last(86_400)}, 0)::bigint as value_1d,
            coalesce(sum(value_minor) {_last(604_800)}, 0)::bigint as value_7d,
            coalesce(sum(value_minor) {_last(2_592_000)}, 0)::bigint as value_30d,
            coalesce(sum(failed) {_last(86_400)}, 0)::bigint as failed_1d,
            count(*) {_last(86_400, "is_new_merchant")} as new_merchants_1d,
            count(*) {_last(1_209_600, "is_large")} as large_payments_14d,
            count(*) filter (where is_past) as past_payments,
            coalesce(sum(value_minor) filter (where is_past), 0)::bigint as past_value,
            max(value_minor) filter (where is_past) as past_largest_value,
            count(*) filter (where label_second <= now_second) as known_frauds,
            max(paid_second) filter (where is_past) as last_second,
            least(
                {_leaves_or_comes(3_600, 86_400, 604_800, 1_209_600, 2_592_000)},
                min(label_second) filter (where label_second > now_second)
            ) as refresh_second
        from flagged
        group by entity
    )
    select
        entity,
        {_or_zero("payments_1h", "payments_1d", "payments_7d", "payments_30d", "value_1d", "value_7d", "value_30d")},
        {_or_zero("failed_1d", "new_merchants_1d", "large_payments_14d", "past_payments", "past_value")},
        past_largest_value,
        {_or_zero("known_frauds")},
        last_second,
        refresh_second
    from (select distinct entity from persons) as known
    left join counted using (entity)
"""

_CARD_FEATURES = f"""
    with methods as (
        select asked.entity, payment_methods.merchant_id, payment_methods.customer_id, payment_method_id
        from unnest(%(entities)s::text[]) as asked (entity)
        inner join core.payment_methods on asked.entity = payment_methods.fingerprint
    ),
    charges as (
        select
            methods.entity,
            charges.merchant_id,
            charges.charge_id,
            charges.created_at,
            (charges.status = 'failed')::integer as failed,
            extract(epoch from date_trunc('second', charges.created_at))::bigint as paid_second
        from methods
        inner join core.charges using (merchant_id, customer_id, payment_method_id)
    ),
    {_CLOCK},
    past as (
        select charges.*, label_second, now_second, created_at <= %(as_of)s as is_past
        from charges
        cross join clock
        cross join lateral ({_LABEL}) as label
    ),
    counted as (
        select
            entity,
            count(*) {_last(600)} as payments_10m,
            count(*) {_last(3_600)} as payments_1h,
            count(*) {_last(86_400)} as payments_1d,
            coalesce(sum(failed) {_last(86_400)}, 0)::bigint as failed_1d,
            count(*) filter (where label_second <= now_second) as known_frauds,
            max(paid_second) filter (where is_past) as last_second,
            least(
                {_leaves_or_comes(600, 3_600, 86_400)},
                min(label_second) filter (where label_second > now_second)
            ) as refresh_second
        from past
        group by entity
    )
    select
        entity,
        {_or_zero("payments_10m", "payments_1h", "payments_1d", "failed_1d", "known_frauds")},
        last_second,
        refresh_second
    from (select distinct entity from methods) as known
    left join counted using (entity)
"""

_MERCHANT_FEATURES = f"""
    with asked as (
        select merchants.merchant_id as entity
        from unnest(%(entities)s::text[]) as asked (merchant_id)
        inner join core.merchants using (merchant_id)
    ),
    charges as (
        select asked.entity, charges.*
        from asked
        inner join core.charges on asked.entity = charges.merchant_id
        where created_at > %(as_of)s::timestamptz - make_interval(secs => 2592001 + %(label_delay)s)
    ),
    {_SEEN},
    {_CLOCK},
    disputed as (
        select distinct asked.entity, disputes.merchant_id, disputes.charge_id
        from asked
        inner join core.disputes on asked.entity = disputes.merchant_id
        where reason = 'fraudulent'
    ),
    labels as (
        select
            entity,
            count(*) filter (where label_second <= now_second and label_second > now_second - 86400)
                as known_frauds_1d,
            count(*) filter (where label_second <= now_second and label_second > now_second - 604800)
                as known_frauds_7d,
            count(*) filter (where label_second <= now_second and label_second > now_second - 2592000)
                as known_frauds_30d,
            count(*) filter (where label_second <= now_second) as known_frauds,
            least(
                min(label_second) filter (where label_second > now_second),
                min(label_second) filter (where label_second > now_second - 86400) + 86400,
                min(label_second) filter (where label_second > now_second - 604800) + 604800,
                min(label_second) filter (where label_second > now_second - 2592000) + 2592000
            ) as label_refresh_second
        from disputed as charges
        cross join lateral ({_LABEL}) as label
        cross join clock
        group by entity
    ),
    past as (
        select *, created_at <= %(as_of)s as is_past, now_second - %(label_delay)s as matured_second
        from seen
        cross join clock
    ),
    counted as (
        select
            entity,
            count(*) {_last(600, "value_minor < 500")} as small_payments_10m,
            count(*) {_last(3_600)} as payments_1h,
            count(*) {_last(86_400)} as payments_1d,
            count(*) {_last(2_592_000)} as payments_30d,
            coalesce(sum(failed) {_last(3_600)}, 0)::bigint as failed_1h,
            coalesce(sum(value_minor) {_last(2_592_000)}, 0)::bigint as value_30d,
            count(*) filter (where paid_second <= matured_second and paid_second > matured_second - 86400)
                as matured_payments_1d,
            count(*) filter (where paid_second <= matured_second and paid_second > matured_second - 604800)
                as matured_payments_7d,
            count(*) filter (where paid_second <= matured_second and paid_second > matured_second - 2592000)
                as matured_payments_30d,
            max(paid_second) filter (where is_past) as last_second,
            least(
                {_leaves_or_comes(600, 3_600, 86_400, 2_592_000)},
                min(paid_second) filter (where paid_second > matured_second) + %(label_delay)s,
                min(paid_second) filter (where paid_second > matured_second - 86400) + 86400 + %(label_delay)s,
                min(paid_second) filter (where paid_second > matured_second - 604800) + 604800 + %(label_delay)s,
                min(paid_second) filter (where paid_second > matured_second - 2592000) + 2592000 + %(label_delay)s
            ) as payment_refresh_second
        from past
        group by entity
    )
    select
        entity,
        {_or_zero("small_payments_10m", "payments_1h", "payments_1d", "payments_30d", "failed_1h", "value_30d")},
        {_or_zero("matured_payments_1d", "matured_payments_7d", "matured_payments_30d")},
        {_or_zero("known_frauds_1d", "known_frauds_7d", "known_frauds_30d", "known_frauds")},
        last_second,
        least(payment_refresh_second, label_refresh_second) as refresh_second
    from asked
    left join counted using (entity)
    left join labels using (entity)
"""

_FEATURES = {"customer": _CUSTOMER_FEATURES, "card": _CARD_FEATURES, "merchant": _MERCHANT_FEATURES}
