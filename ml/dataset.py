"""The feature table of the warehouse as arrays, split by time the way a model would have met it.

The table is ``<schema>.feat_payments``: eleven columns that say which payment a row is and what is known of it, every
other column a feature, computed as of the moment of payment. A label has a moment too: it is known from
``fraud_known_at`` on, and before that the payment looks like any other. A declined attempt never gets a label, because
nobody disputes what was not paid: such rows are scored, but neither taught nor judged.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from payments.errors import UsageError
from payments.settings import settings

FEATURE_SCHEMA = "dev_features"
FEATURE_TABLE = "feat_payments"
PAYMENT_SCHEMA = "dev_marts"
PAYMENT_TABLE = "fct_payments"
META_COLUMNS = frozenset(
    {
        "payment_key", "payment_id", "source", "merchant_id", "customer_key", "card_key", "amount_minor", "currency",
        "order_key", "paid_at", "is_fraud", "fraud_known_at",
    }
)  # fmt: skip
NUMERIC_TYPES = frozenset({"BIGINT", "INTEGER", "SMALLINT", "TINYINT", "HUGEINT", "DOUBLE", "FLOAT"})

DAY_US = 86_400_000_000
NEVER = np.iinfo(np.int64).max
SILENT_DAYS = 30
LEAST_TEST_DAYS = 7
LEAST_HISTORY_DAYS = 21
KNOWN_DAYS = 7
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class FeatureSchema:
    """The features of the table in their order, with their types; ``digest`` names this exact list."""

    features: tuple[str, ...]
    types: tuple[str, ...]

    @property
    def digest(self) -> str:
        """The name of this list: 16 hexadecimal digits."""
        listed = "\n".join(f"{name} {kind}" for name, kind in zip(self.features, self.types, strict=True))
        return hashlib.sha256(listed.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Payments:
    """Payments in order of time: parallel arrays, and ``matrix`` with one row a payment and one column a feature.

    ``paid_at`` and ``known_at`` are microseconds since 1970 UTC; ``known_at`` is ``NEVER`` where no fraud is known.
    ``is_declined`` marks attempts that failed. A missing feature is NaN.
    """

    schema: FeatureSchema
    payment_keys: NDArray[np.str_]
    payment_ids: NDArray[np.str_]
    merchant_ids: NDArray[np.str_]
    card_keys: NDArray[np.str_]
    amount_minor: NDArray[np.int64]
    paid_at: NDArray[np.int64]
    known_at: NDArray[np.int64]
    is_declined: NDArray[np.bool_]
    matrix: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.paid_at)

    @property
    def days(self) -> NDArray[np.int64]:
        """The UTC day of each payment, as days since 1970."""
        return self.paid_at // DAY_US

    def fraud_known_by(self, moment: int) -> NDArray[np.bool_]:
        """Return which payments are known to be fraud at ``moment`` (microseconds since 1970)."""
        return self.known_at <= moment

    def column(self, feature: str) -> NDArray[np.float64]:
        """Return one feature; raises ``UsageError`` when the table has no such column."""
        if feature not in self.schema.features:
            raise UsageError(f"{FEATURE_TABLE} has no feature {feature}: build it with dbt build")
        column: NDArray[np.float64] = self.matrix[:, self.schema.features.index(feature)]
        return column

    def where(self, rows: NDArray[np.bool_]) -> "Payments":
        """Return the payments that ``rows`` selects."""
        return Payments(
            schema=self.schema,
            payment_keys=self.payment_keys[rows],
            payment_ids=self.payment_ids[rows],
            merchant_ids=self.merchant_ids[rows],
            card_keys=self.card_keys[rows],
            amount_minor=self.amount_minor[rows],
            paid_at=self.paid_at[rows],
            known_at=self.known_at[rows],
            is_declined=self.is_declined[rows],
            matrix=self.matrix[rows],
        )


@dataclass(frozen=True)
class ObservedSpan:
    """What the table covers: first and last payment, the last moment anything became known, and how late labels are."""

    rows: int
    first_paid_at: int
    last_paid_at: int
    known_until: int
    delay_days: int


@dataclass(frozen=True)
class TimeSplit:
    """Train on [train_start, train_end), decide at test_start, test on [test_start, test_end); microseconds since 1970.

    Between train_end and test_start lies a gap: payments whose fraud would not yet be known when the model is trained.
    Training happens at test_start with the labels known then. The gap is the label delay, unless the history is short.
    """

    train_start: int
    train_end: int
    test_start: int
    test_end: int
    delay_days: int

    @property
    def gap_days(self) -> int:
        """The days between training and test."""
        return (self.test_start - self.train_end) // DAY_US

    @property
    def known_since(self) -> int:
        """From here on a known fraud takes its card out of the test: the gap and a week before the test."""
        return self.train_end - KNOWN_DAYS * DAY_US

    def as_dict(self) -> dict[str, str | int]:
        """Return the bounds as ISO texts."""
        return {
            "train_start": iso(self.train_start),
            "train_end": iso(self.train_end),
            "test_start": iso(self.test_start),
            "test_end": iso(self.test_end),
            "label_delay_days": self.delay_days,
            "gap_days": self.gap_days,
        }


def moment(microseconds: int) -> datetime:
    """Return microseconds since 1970 as a UTC datetime."""
    return EPOCH + timedelta(microseconds=int(microseconds))


def iso(microseconds: int) -> str:
    """Return microseconds since 1970 as an ISO 8601 text in UTC."""
    return moment(microseconds).isoformat()


def split_by_time(span: ObservedSpan) -> TimeSplit:
    """Return the latest split whose test labels have had time to become known.

    The test period ends where a gap later is still covered by the data, or with the last day of payments. Of the days
    that remain when a gap is set aside before it, it takes a fifth, and at least seven. The gap is the label delay, but
    no more than a fifth of the history: what is not known yet after that counts as legitimate, in training and test.

    Raises ``UsageError`` when the history is too short to leave a day to train on.
    """
    day_after_last = (span.last_paid_at // DAY_US + 1) * DAY_US
    train_start = span.first_paid_at // DAY_US * DAY_US
    history_days = (day_after_last - train_start) // DAY_US
    if history_days < LEAST_HISTORY_DAYS:
        raise UsageError(
            f"the history is too short to train on: {history_days} days, at least {LEAST_HISTORY_DAYS} are needed; "
            "simulate or land a longer one"
        )
    gap_days = min(span.delay_days, history_days // 5)
    mature_until = (span.known_until // DAY_US - gap_days) * DAY_US
    test_end = min(day_after_last, mature_until)
    usable_days = (test_end - train_start) // DAY_US - gap_days
    test_days = max(LEAST_TEST_DAYS, usable_days // 5)
    test_start = test_end - test_days * DAY_US
    train_end = test_start - gap_days * DAY_US
    return TimeSplit(train_start, train_end, test_start, test_end, span.delay_days)


def judged_rows(payments: Payments, split: TimeSplit) -> NDArray[np.bool_]:
    """Return which payments the test judges: those paid in the test period by a card not known to be compromised.

    A card leaves on the first day that begins after its fraud became known (it would have been blocked and replaced);
    frauds paid since ``split.known_since`` count. With a fixed delay of 7 days this is the rule of the Fraud Detection
    Handbook: the cards of the training week and of each day up to eight days before the day tested.
    """
    in_test = ~payments.is_declined & (payments.paid_at >= split.test_start) & (payments.paid_at < split.test_end)
    counted = (payments.paid_at >= split.known_since) & (payments.known_at != NEVER)
    cards, position = np.unique(payments.card_keys, return_inverse=True)
    first_known = np.full(len(cards), NEVER, dtype=np.int64)
    np.minimum.at(first_known, position[counted], payments.known_at[counted])
    result: NDArray[np.bool_] = in_test & ~(first_known[position] < payments.days * DAY_US)
    return result


class FeatureStore:
    """The feature table of an open warehouse connection, beside the table of payments that says how each ended."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        relation: str = f"{FEATURE_SCHEMA}.{FEATURE_TABLE}",
        payments: str = f"{PAYMENT_SCHEMA}.{PAYMENT_TABLE}",
    ) -> None:
        self._connection = connection
        self._relation = relation
        self._payments = payments
        self.schema = self._read_schema()

    def _read_schema(self) -> FeatureSchema:
        columns = self._connection.execute(f"describe {self._relation}").fetchall()
        missing = META_COLUMNS - {name for name, *_ in columns}
        if missing:
            raise ValueError(f"{self._relation} lacks {', '.join(sorted(missing))}")
        features = [(name, kind) for name, kind, *_ in columns if name not in META_COLUMNS]
        wrong = [f"{name} ({kind})" for name, kind in features if kind not in NUMERIC_TYPES]
        if wrong:
            raise ValueError(f"features must be numbers; {self._relation} has {', '.join(wrong)}")
        return FeatureSchema(tuple(name for name, _ in features), tuple(kind for _, kind in features))

    def span(self) -> ObservedSpan:
        """Return what the table covers; raises ``UsageError`` when it is empty or holds no known fraud.

        The label delay is the 95th percentile of the time between a payment and the moment its fraud became known,
        rounded up to whole days, of the source whose labels are slowest. Where payments fell silent for more than
        ``SILENT_DAYS`` (live ones long after a history), the span is the stretch with the most of them: a period
        without payments can judge nothing.
        """
        found = self._connection.execute(
            f"""
            with days as (
                select distinct epoch_us(paid_at) // {DAY_US} as day from {self._relation}
            ),
            begun as (
                select day, day - lag(day, 1, day) over (order by day) > {SILENT_DAYS} as is_begun from days
            ),
            stretches as (
                select day, count(*) filter (is_begun) over (order by day) as stretch from begun
            ),
            paid as (
                select payments.*, stretches.stretch
                from {self._relation} as payments
                inner join stretches on epoch_us(payments.paid_at) // {DAY_US} = stretches.day
            ),
            observed as (
                select * from paid where stretch = (select mode(stretch) from paid)
            ),
            delays as (
                select
                    source,
                    quantile_disc(epoch_us(fraud_known_at) - epoch_us(paid_at), 0.95) as delay_us
                from observed
                where is_fraud and fraud_known_at is not null
                group by source
            )
            select
                count(*),
                epoch_us(min(paid_at)),
                epoch_us(max(paid_at)),
                epoch_us(greatest(max(paid_at), max(fraud_known_at))),
                (select max(delay_us) from delays)
            from observed
            """
        ).fetchone()
        if found is None or not found[0]:
            raise UsageError("there is no payment to learn from: land data and run dbt build")
        rows, first, last, known_until, delay_us = found
        if delay_us is None:
            raise UsageError("no fraud is known yet, so there is nothing to learn: land data with labels or disputes")
        return ObservedSpan(rows, first, last, known_until, delay_days=-(-int(delay_us) // DAY_US))

    def load(self, start: int | None = None, end: int | None = None) -> Payments:
        """Return the payments paid in [start, end), microseconds since 1970, in the order of ``order_key``."""
        features = ", ".join(f'cast(feature."{name}" as double) as "{name}"' for name in self.schema.features)
        columns: dict[str, Any] = dict(
            self._connection.execute(
                f"""
            select
                feature.payment_key,
                feature.payment_id,
                coalesce(feature.merchant_id, '') as merchant_id,
                coalesce(feature.card_key, feature.customer_key, feature.payment_key) as card_key,
                feature.amount_minor,
                epoch_us(feature.paid_at) as paid_at,
                case
                    when feature.is_fraud then coalesce(epoch_us(feature.fraud_known_at), $known_until)
                    else $never
                end as known_at,
                payment.status = 'failed' as is_declined,
                {features}
            from {self._relation} as feature
            inner join {self._payments} as payment on feature.payment_key = payment.payment_key
            where feature.paid_at >= make_timestamptz($start) and feature.paid_at < make_timestamptz($end)
            order by feature.order_key, feature.payment_key
            """,
                {
                    "known_until": self.span().known_until,
                    "never": NEVER,
                    "start": -DAY_US if start is None else int(start),
                    "end": 4_102_444_800_000_000 if end is None else int(end),
                },
            ).fetchnumpy()
        )
        rows = len(columns["paid_at"])
        matrix = np.empty((rows, len(self.schema.features)), dtype=np.float64)
        for index, name in enumerate(self.schema.features):
            matrix[:, index] = _filled(columns.pop(name))
        return Payments(
            schema=self.schema,
            payment_keys=columns["payment_key"].astype(np.str_),
            payment_ids=columns["payment_id"].astype(np.str_),
            merchant_ids=columns["merchant_id"].astype(np.str_),
            card_keys=columns["card_key"].astype(np.str_),
            amount_minor=columns["amount_minor"].astype(np.int64),
            paid_at=columns["paid_at"].astype(np.int64),
            known_at=columns["known_at"].astype(np.int64),
            is_declined=columns["is_declined"].astype(np.bool_),
            matrix=matrix,
        )


def _filled(column: Any) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.ma.filled(column, np.nan)
    return values


@contextmanager
def open_feature_store() -> Iterator[FeatureStore]:
    """Open the DuckDB warehouse read-only and yield its features; raises ``UsageError`` when they are not built."""
    path = settings().warehouse_path
    if not path.exists():
        raise UsageError(f"there is no warehouse at {path}: run dbt build")
    with duckdb.connect(str(path), read_only=True) as connection:
        connection.execute("set TimeZone = 'UTC'")
        built = set(connection.execute("select table_schema, table_name from information_schema.tables").fetchall())
        for needed in ((FEATURE_SCHEMA, FEATURE_TABLE), (PAYMENT_SCHEMA, PAYMENT_TABLE)):
            if needed not in built:
                raise UsageError(f"the warehouse has no {'.'.join(needed)}: run dbt build")
        yield FeatureStore(connection)
