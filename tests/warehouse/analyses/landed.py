"""What has landed, as it stands now, and the few notions that all recomputations share: days, rates and rounding."""

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from fractions import Fraction
from functools import cached_property
from itertools import groupby
from typing import Any

from payments.settings import PROJECT_ROOT, settings
from tests.ingestion.raw import latest

Row = dict[str, Any]
Answer = list[Row]
INQUIRIES = {"warning_needs_response", "warning_under_review", "warning_closed", "prevented"}
OPEN = {"warning_needs_response", "warning_under_review", "needs_response", "under_review"}
NOT_GIVEN = {"failed", "canceled"}
NOT_PAID = {"failed", "pending"}


@dataclass(frozen=True)
class Payment:
    """A charge with what belongs to it; ``usd`` and ``captured_usd`` are None without a rate."""

    merchant_id: str
    payment_id: str
    customer_id: str | None
    method_id: str | None
    method: str | None
    issuer_country: str
    device_id: str | None
    currency: str
    status: str
    failure_code: str | None
    paid_at: datetime
    amount: int
    captured: int
    fee: int
    anomaly_score: float
    usd: int | None
    captured_usd: int | None

    @property
    def day(self) -> date:
        return day(self.paid_at)

    @property
    def is_captured(self) -> bool:
        return self.captured > 0

    @property
    def has_failed(self) -> bool:
        return self.status == "failed"

    @property
    def customer(self) -> tuple[str, str | None]:
        """A customer is one of a merchant."""
        return self.merchant_id, self.customer_id


class Landed:
    """The raw zone: the latest row of each key, that is not deleted."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], list[Row]] = {}

    def rows(self, entity: str, source: str = "oltp") -> list[Row]:
        if (source, entity) not in self._rows:
            self._rows[source, entity] = latest(source, entity)
        return self._rows[source, entity]

    def documents(self, collection: str) -> list[Row]:
        return self.rows(collection, "documents")

    @cached_property
    def batches(self) -> list[Row]:
        """The commit records of all landings."""
        return [json.loads(path.read_bytes()) for path in sorted((settings().raw_zone / "commits").glob("*.json"))]

    @cached_property
    def as_of(self) -> datetime:
        """The moment that counts as now: the latest at which a source that landed stood."""
        return max(moment(batch["source_at"]) for batch in self.batches)

    @cached_property
    def payments(self) -> list[Payment]:
        methods = {(row["merchant_id"], row["payment_method_id"]): row for row in self.rows("payment_methods")}
        movements = {
            (row["merchant_id"], row["balance_transaction_id"]): row["source_id"]
            for row in self.rows("balance_transactions")
            if row["type"] == "charge"
        }
        fees: dict[tuple[str, str | None], int] = defaultdict(int)
        for row in self.rows("balance_transaction_fees"):
            if row["type"] == "processing_fee":
                charge = movements.get((row["merchant_id"], row["balance_transaction_id"]))
                fees[row["merchant_id"], charge] += row["amount_minor"]
        return [self._payment(charge, methods, fees) for charge in self.rows("charges")]

    def _payment(
        self, charge: Row, methods: dict[tuple[str, str], Row], fees: dict[tuple[str, str | None], int]
    ) -> Payment:
        method = methods.get((charge["merchant_id"], charge["payment_method_id"]), {})
        currency, on = charge["currency"], day(charge["created_at"])
        return Payment(
            merchant_id=charge["merchant_id"],
            payment_id=charge["charge_id"],
            customer_id=charge["customer_id"],
            method_id=charge["payment_method_id"],
            method=method.get("type"),
            issuer_country=method.get("issuer_country") or "ZZ",
            device_id=charge["device_id"],
            currency=currency,
            status=charge["status"],
            failure_code=charge["failure_code"],
            paid_at=charge["created_at"],
            amount=charge["amount_minor"],
            captured=charge["amount_captured_minor"],
            fee=fees[charge["merchant_id"], charge["charge_id"]],
            anomaly_score=float(charge["anomaly_score"] or 0),
            usd=self.usd(charge["amount_minor"], currency, on),
            captured_usd=self.usd(charge["amount_captured_minor"], currency, on),
        )

    @cached_property
    def payment(self) -> dict[tuple[str, str], Payment]:
        return {(found.merchant_id, found.payment_id): found for found in self.payments}

    @cached_property
    def refunds(self) -> list[Row]:
        """Refunds that were given, each with its payment and at the rate of that one."""
        return [self._of_payment(row) for row in self.rows("refunds") if row["status"] not in NOT_GIVEN]

    @cached_property
    def disputes(self) -> list[Row]:
        """Disputes but inquiries, each with its payment and at the rate of that one."""
        return [self._of_payment(row) for row in self.rows("disputes") if row["status"] not in INQUIRIES]

    def _of_payment(self, row: Row) -> Row:
        payment = self.payment[row["merchant_id"], row["charge_id"]]
        return row | {"payment": payment, "usd": self.usd(row["amount_minor"], row["currency"], payment.day)}

    @cached_property
    def merchants(self) -> dict[str, Row]:
        return {row["merchant_id"]: row for row in self.rows("merchants")}

    def name_of(self, merchant_id: str) -> str | None:
        """The name of a merchant; none for one that is only mentioned."""
        name: str | None = self.merchants.get(merchant_id, {}).get("business_name")
        return name

    def mcc_of(self, merchant_id: str) -> str:
        return self.merchants.get(merchant_id, {}).get("mcc") or "0000"

    @cached_property
    def categories(self) -> dict[str, Row]:
        return {row["mcc"]: row for row in seed("merchant_categories")}

    @cached_property
    def exponents(self) -> dict[str, int]:
        return {row["currency"]: int(row["exponent"]) for row in seed("currencies")}

    @cached_property
    def _rates(self) -> dict[str, list[tuple[date, Fraction]]]:
        found: dict[str, list[tuple[date, Fraction]]] = defaultdict(list)
        for row in seed("exchange_rates"):
            found[row["currency"]].append((date.fromisoformat(row["valid_from"]), Fraction(row["rate_to_usd"])))
        return {currency: sorted(rates) for currency, rates in found.items()}

    def rate(self, currency: str, on: date) -> Fraction | None:
        """The book rate of a day: the last one before it, or the first one there is."""
        rates = self._rates.get(currency)
        if not rates:
            return None
        return max((rate for rate in rates if rate[0] <= on), default=rates[0])[1]

    def usd(self, amount: int, currency: str, on: date) -> int | None:
        """Minor units of the reporting currency, rounded half to even."""
        rate = self.rate(currency, on)
        return None if rate is None else round(amount * rate * Fraction(10) ** (2 - self.exponents[currency]))


def seed(name: str) -> list[dict[str, str]]:
    with (PROJECT_ROOT / "seeds" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def day(at: datetime) -> date:
    return at.astimezone(UTC).date()


def month(on: date) -> date:
    return on.replace(day=1)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def total(values: Iterable[int | None]) -> int:
    """A sum; what has no value counts as nothing."""
    return sum(value or 0 for value in values)


def ratio(part: int, whole: int) -> int | None:
    """A quotient rounded half to even; none of nothing."""
    return round(Fraction(part, whole)) if whole else None


def basis_points(part: int, whole: int) -> int | None:
    return ratio(10_000 * part, whole)


def percentile(percent: int, values: Iterable[int]) -> int:
    """The nearest rank."""
    ordered = sorted(values)
    return ordered[-(-percent * len(ordered) // 100) - 1]


def grouped(rows: Iterable[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    """Rows by key, in the order of their keys; a key without a value comes last."""
    ordered = sorted(rows, key=lambda row: _sortable(key(row)))
    return {found: list(members) for found, members in groupby(ordered, key)}


def in_order(rows: Answer, *columns: str) -> Answer:
    """Rows by columns; one with a minus before it from the largest down."""
    for column in reversed(columns):
        name = column.removeprefix("-")
        rows = sorted(rows, key=lambda row: _sortable(row[name]), reverse=column.startswith("-"))
    return rows


def _sortable(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_sortable(part) for part in value)
    return (value is None, value if value is not None else 0)
