"""The history as tables of the operational store: the columns of each, made slice by slice to keep memory small."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from payments.simulation.aftermath import (
    DISPUTE_REASONS,
    DISPUTE_STATUSES,
    REFUND_REASONS,
    REFUND_STATUSES,
    settlement_moment,
)
from payments.simulation.arrays import Flags, Ints, Values
from payments.simulation.authorizations import HELD_FOR
from payments.simulation.business import CANCELED, CANCELLATION_REASONS, INTENT_STATUSES, Business
from payments.simulation.identities import Identities, Person
from payments.simulation.ids import IdSpace, hashes
from payments.simulation.movements import FEES, TYPES
from payments.simulation.plan import DAY
from payments.simulation.population import BANK_DEBIT, CITIES, CITY_COUNTRY, INSTRUMENT_TYPES
from payments.simulation.postings import CODES, DEBIT_NORMAL, HOLD_STATUSES, KINDS, PROTECTED, SPACES
from payments.simulation.purchases import FAILED, PENDING, SUCCEEDED
from payments.simulation.streams import Streams
from payments.simulation.world import BRANDS, CATEGORIES, COUNTRIES, DEVICE_TYPES, FAILURES, FUNDINGS, MONIES
from payments.vault import KeyRing, card_fingerprint, merchant_token, network_prefix_token, network_token

Column = Callable[[slice], Values]
COUNTRY_CODES = tuple(country.code for country in COUNTRIES)
CURRENCIES = tuple(money.code for money in MONIES)
_RETENTION = 2557 * DAY  # seven years
_EVIDENCE_TIME = 14 * DAY
_SHOP_WORDS = (
    "Harbour", "Maple", "Silver", "Northern", "Cedar", "Lantern", "Blue", "Copper", "Garden", "Summit",
    "River", "Amber", "Willow", "Orchid", "Atlas", "Beacon", "Meadow", "Coral", "Granite", "Juniper",
    "Velvet", "Falcon", "Ivory", "Sable", "Tulip", "Violet", "Walnut", "Zephyr", "Comet", "Delta",
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table to write: its name with schema, its number of rows, and a function for each column."""

    name: str
    rows: int
    columns: dict[str, Column]

    def batch(self, rows: slice) -> pa.RecordBatch:
        """Return a slice of the table."""
        return pa.RecordBatch.from_arrays([column(rows) for column in self.columns.values()], names=list(self.columns))


def _labels(names: Sequence[str], codes: Ints) -> Column:
    """Name each code; a negative code is null."""
    values = pa.array(names, pa.string())
    return _taken(values, codes)


def _taken(values: Values, index: Ints) -> Column:
    """Take the value in each place; that in a negative place is null."""
    return lambda rows: values.take(_places(index[rows]))


def _places(index: Ints) -> pa.Int64Array:
    return pa.array(index, pa.int64(), mask=index < 0)


def _joined(*parts: Values) -> Values:
    """Join texts with colons, row by row."""
    join: Any = pc.binary_join_element_wise
    joined: Values = join(*parts, ":")
    return joined


def _numbers(values: Ints | Flags, is_null: Flags | None = None) -> Column:
    return lambda rows: pa.array(values[rows], mask=None if is_null is None else is_null[rows])


def _moments(values: Ints) -> Column:
    """Moments in microseconds; a negative one is null."""
    kind = pa.timestamp("us", tz="UTC")
    return lambda rows: pa.array(values[rows], pa.int64(), mask=values[rows] < 0).cast(kind)


def _dates(moments: Ints) -> Column:
    return lambda rows: pa.array((moments[rows] // DAY).astype(np.int32)).cast(pa.date32())


def _ids(space: IdSpace, counters: Ints) -> Column:
    return lambda rows: space.arrow(counters[rows])


def _constant(value: str, count: int) -> Column:
    return lambda rows: pa.repeat(value, len(range(*rows.indices(count))))


def _hex(values: Iterable[bytes]) -> Values:
    return pa.array([f"\\x{value.hex()}" for value in values], pa.string())


def _rank(moments: Ints) -> Ints:
    """Return the place of each row in the order of time: counters that tell nothing about how the row was drawn."""
    order = np.argsort(moments, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank


class Tables:
    """All tables of a history."""

    def __init__(self, business: Business) -> None:
        self.business = business
        self.streams = Streams(business.plan.seed)
        self.identities = Identities(self.streams, business.population.subjects)
        self.spaces = {
            prefix: IdSpace(business.plan.seed, prefix)
            for prefix in ("acct", "cus", "pm", "pi", "ch", "re", "dp", "txn", "lt", "dev", "hold", "fee")
        }

    @cached_property
    def merchant_ids(self) -> Values:
        """The id of each merchant."""
        return self.spaces["acct"].arrow(_rank(self.business.population.merchants.created))

    @cached_property
    def customer_ids(self) -> Values:
        """The id of each customer."""
        return self.spaces["cus"].arrow(_rank(self.business.customer_created))

    @cached_property
    def method_ids(self) -> Values:
        """The id of each payment method."""
        return self.spaces["pm"].arrow(_rank(self.business.method_created))

    def device_ids(self, devices: Ints) -> Values:
        """The ids of these devices, scattered so that neighbours in the plan are none in the store."""
        return self.spaces["dev"].arrow(devices * 0x9E3779B1 % (1 << 31))

    def digest(self) -> str:
        """Return a digest of the generated history (not of ciphertexts and tokens, which depend on keys)."""
        business, digest = self.business, hashlib.sha256()
        for values in (
            business.charges.created,
            business.sales.amount,
            business.charges.status,
            business.charges.device,
            business.charge_customer,
            business.charge_updated,
            business.refunds.created,
            business.disputes.updated,
            business.ledger.entry_balance,
            business.method_created,
        ):
            digest.update(np.ascontiguousarray(values).tobytes())
        sample = np.arange(min(64, len(business.sales.amount)))
        digest.update(self.spaces["ch"].matrix(sample).tobytes())
        return digest.hexdigest()

    def all(self, ring: KeyRing) -> list[Table]:
        """Return every table; identity is encrypted and tokens are made with this ring, when a slice is asked for.

        The large tables come first: the server sorts their indexes while those with costly columns are still made.
        """
        return [
            self._entries(),
            self._balance_transactions(),
            self._fee_parts(),
            self._settlements(),
            self._intents(),
            self._charges(ring),
            self._ledger_transactions(),
            self._accounts(),
            self._holds(),
            self._application_fees(),
            self._refunds(),
            self._disputes(),
            self._merchants(),
            self._subjects(ring),
            self._customers(ring),
            self._identity(),
            self._methods(ring),
        ]

    def _merchants(self) -> Table:
        merchants, generator = self.business.population.merchants, self.streams.stream("shop names")
        count = len(merchants.weight)
        first, second = (generator.integers(0, len(_SHOP_WORDS), count).tolist() for _ in range(2))
        names = pa.array(
            [
                f"{_SHOP_WORDS[one]} {_SHOP_WORDS[two]} {CATEGORIES[category].noun}"
                if one != two
                else f"{_SHOP_WORDS[one]} {CATEGORIES[category].noun}"
                for one, two, category in zip(first, second, merchants.category.tolist(), strict=True)
            ]
        )
        columns: dict[str, Column] = {
            "merchant_id": lambda rows: self.merchant_ids[rows],
            "business_name": lambda rows: names[rows],
            "mcc": _labels([entry.mcc for entry in CATEGORIES], merchants.category),
            "country": _labels(COUNTRY_CODES, merchants.country),
            "default_currency": _labels(CURRENCIES, merchants.money),
            "status": _labels(("active", "restricted"), merchants.status),
            "fee_basis_points": _numbers(merchants.fee_basis_points),
            "fee_fixed_minor": _numbers(merchants.fee_fixed),
            "created_at": _moments(merchants.created),
            "updated_at": _moments(merchants.created),
        }
        return Table("core.merchants", count, columns)

    def _subjects(self, ring: KeyRing) -> Table:
        subjects = self.business.population.subjects
        known_since = np.full(len(subjects.country), self.business.plan.end_moment)
        np.minimum.at(known_since, self.business.population.customers.subject, self.business.customer_created)
        ids = pa.array([str(subject) for subject in self.identities.subject_ids])
        columns: dict[str, Column] = {
            "subject_id": lambda rows: ids[rows],
            "key_id": _constant(ring.active_key_id, len(ids)),
            "wrapped_key": lambda rows: _hex(self.identities.wrapped_keys(ring, rows)),
            "created_at": _moments(known_since),
        }
        return Table("vault.subjects", len(ids), columns)

    def _customers(self, ring: KeyRing) -> Table:
        customers, subjects = self.business.population.customers, self.business.population.subjects
        merchant_ids: list[Any] = self.merchant_ids.to_pylist()

        def persons(rows: slice) -> list[Person]:
            return [self.identities.persons[row] for row in customers.subject[rows].tolist()]

        def scoped(rows: slice) -> Values:
            pairs = zip(customers.merchant[rows].tolist(), persons(rows), strict=True)
            return pa.array([merchant_token(ring, merchant_ids[shop], person.email) for shop, person in pairs])

        created = self.business.customer_created
        columns: dict[str, Column] = {
            "merchant_id": _taken(self.merchant_ids, customers.merchant),
            "customer_id": lambda rows: self.customer_ids[rows],
            "merchant_token": scoped,
            "network_token": lambda rows: pa.array([network_token(ring, person.email) for person in persons(rows)]),
            "country": _labels(COUNTRY_CODES, subjects.country[customers.subject]),
            "city": _labels(CITIES, subjects.city[customers.subject]),
            "email_domain": lambda rows: pa.array([person.email_domain for person in persons(rows)]),
            "has_marketing_consent": _numbers(customers.has_consent),
            "consent_at": _moments(created),
            "retention_until": _dates(created + _RETENTION),
            "created_at": _moments(created),
            "updated_at": _moments(created),
        }
        return Table("core.customers", len(created), columns)

    def _identity(self) -> Table:
        customers = self.business.population.customers
        ids = pa.array([str(subject) for subject in self.identities.subject_ids])

        def encrypted(field: str) -> Column:
            return lambda rows: _hex(self.identities.encrypted(field, customers.subject[rows]))

        columns: dict[str, Column] = {
            "merchant_id": _taken(self.merchant_ids, customers.merchant),
            "customer_id": lambda rows: self.customer_ids[rows],
            "subject_id": _taken(ids, customers.subject),
            "name_encrypted": encrypted("name"),
            "email_encrypted": encrypted("email"),
            "phone_encrypted": encrypted("phone"),
            "address_encrypted": encrypted("address"),
        }
        return Table("identity.customers", len(customers.subject), columns)

    def _methods(self, ring: KeyRing) -> Table:
        population = self.business.population
        methods, instruments = population.methods, population.instruments
        seed = self.business.plan.seed

        def fingerprints(rows: slice) -> Values:
            cards = methods.instrument[rows].tolist()
            return pa.array([card_fingerprint(ring, f"card:{seed}:{card}") for card in cards])

        kind, expiry = instruments.kind[methods.instrument], instruments.expiry_month[methods.instrument]
        without_card = kind == BANK_DEBIT
        created = self.business.method_created
        columns: dict[str, Column] = {
            "merchant_id": _taken(self.merchant_ids, population.customers.merchant[methods.customer]),
            "payment_method_id": lambda rows: self.method_ids[rows],
            "customer_id": _taken(self.customer_ids, methods.customer),
            "type": _labels(INSTRUMENT_TYPES, kind),
            "brand": _labels(BRANDS, np.where(without_card, -1, instruments.brand[methods.instrument])),
            "last4": _labels([f"{number:04d}" for number in range(10_000)], instruments.last4[methods.instrument]),
            "exp_month": _numbers(expiry % 12 + 1, without_card),
            "exp_year": _numbers(expiry // 12, without_card),
            "funding": _labels(FUNDINGS, np.where(without_card, -1, instruments.funding[methods.instrument])),
            "issuer_country": _labels(COUNTRY_CODES, instruments.issuer[methods.instrument]),
            "fingerprint": fingerprints,
            "created_at": _moments(created),
            "updated_at": _moments(created),
        }
        return Table("core.payment_methods", len(created), columns)

    def _intents(self) -> Table:
        business = self.business
        intents, count = business.intents, len(business.intents.created)
        endings, merchant = business.endings, business.population.customers.merchant[intents.customer]
        application = np.where(business.application_fee > 0, business.platform[merchant], -1)
        columns: dict[str, Column] = {
            "merchant_id": _taken(self.merchant_ids, merchant),
            "payment_intent_id": _ids(self.spaces["pi"], np.arange(count)),
            "customer_id": _taken(self.customer_ids, intents.customer),
            "payment_method_id": _taken(self.method_ids, intents.method),
            "amount_minor": _numbers(intents.amount),
            "amount_capturable_minor": _numbers(endings.capturable),
            "amount_received_minor": _numbers(endings.received),
            "currency": _labels(CURRENCIES, intents.money),
            "capture_method": _labels(("automatic", "manual"), business.is_manual.astype(np.int64)),
            "application_merchant_id": _taken(self.merchant_ids, application),
            "application_fee_minor": _numbers(business.application_fee),
            "cancellation_reason": _labels(CANCELLATION_REASONS, endings.reason),
            "canceled_at": _moments(np.where(endings.status == CANCELED, endings.updated, -1)),
            "status": _labels(INTENT_STATUSES, endings.status),
            "version": _numbers(endings.version),
            "created_at": _moments(intents.created),
            "updated_at": _moments(endings.updated),
        }
        return Table("core.payment_intents", count, columns)

    def _charges(self, ring: KeyRing) -> Table:
        business = self.business
        charges, count = business.charges, len(business.charges.created)
        is_disputed = np.zeros(count, np.bool_)
        is_disputed[business.disputes.charge] = True
        statuses = {FAILED: "failed", SUCCEEDED: "succeeded", PENDING: "pending"}

        @cache
        def tokens() -> Values:
            return pa.array([network_prefix_token(ring, address) for address in self._network_addresses()])

        columns: dict[str, Column] = {
            "merchant_id": _taken(self.merchant_ids, business.sales.merchant),
            "charge_id": _ids(self.spaces["ch"], np.arange(count)),
            "payment_intent_id": _ids(self.spaces["pi"], charges.intent),
            "customer_id": _taken(self.customer_ids, business.charge_customer),
            "payment_method_id": _taken(self.method_ids, charges.method),
            "amount_minor": _numbers(business.sales.amount),
            "amount_captured_minor": _numbers(business.sales.captured_amount),
            "amount_refunded_minor": _numbers(business.charge_refunded),
            "currency": _labels(CURRENCIES, business.sales.money),
            "status": _labels([statuses[code] for code in range(len(statuses))], charges.status),
            "failure_code": _labels(FAILURES, charges.failure),
            "captured_at": _moments(business.sales.captured),
            "is_disputed": _numbers(is_disputed),
            "ip_country": _labels(COUNTRY_CODES, CITY_COUNTRY[charges.city]),
            "ip_city": _labels(CITIES, charges.city),
            "ip_network_token": lambda rows: tokens().take(_places(charges.network[rows])),
            "device_id": lambda rows: self.device_ids(charges.device[rows]),
            "device_type": _labels(DEVICE_TYPES, charges.device_type),
            "anomaly_score": lambda rows: pa.array(business.charge_score[rows] / 10_000),
            "version": _numbers(business.charge_version),
            "created_at": _moments(charges.created),
            "updated_at": _moments(business.charge_updated),
        }
        return Table("core.charges", count, columns)

    def _network_addresses(self) -> list[str]:
        """Return an address in each network: those of persons, by country, and one for each shop's terminals."""
        count = len(self.business.population.network_country) + len(self.business.population.merchants.weight)
        drawn = hashes(self.business.plan.seed, "network", np.arange(count, dtype=np.int64)).tolist()
        # Any address of the network gives the same token, which alone is stored.
        return [f"{11 + number % 180}.{(number >> 16) % 256}.{(number >> 32) % 256}.1" for number in drawn]

    def _refunds(self) -> Table:
        refunds, count = self.business.refunds, len(self.business.refunds.charge)
        failure = np.where(refunds.failed >= 0, np.where(refunds.settled >= 0, 0, 1), -1)
        columns: dict[str, Column] = {
            "merchant_id": _taken(self.merchant_ids, self.business.sales.merchant[refunds.charge]),
            "refund_id": _ids(self.spaces["re"], np.arange(count)),
            "charge_id": _ids(self.spaces["ch"], refunds.charge),
            "amount_minor": _numbers(refunds.amount),
            "currency": _labels(CURRENCIES, self.business.sales.money[refunds.charge]),
            "status": _labels(REFUND_STATUSES, refunds.status),
            "failure_reason": _labels(("lost_or_stolen_card", "expired_or_canceled_card"), failure),
            "reason": _labels(REFUND_REASONS, refunds.reason),
            "version": _numbers(1 + (refunds.settled >= 0) + (refunds.failed >= 0)),
            "created_at": _moments(refunds.created),
            "updated_at": _moments(np.maximum(refunds.created, np.maximum(refunds.settled, refunds.failed))),
        }
        return Table("core.refunds", count, columns)

    def _disputes(self) -> Table:
        disputes, count = self.business.disputes, len(self.business.disputes.charge)
        columns: dict[str, Column] = {
            "merchant_id": _taken(self.merchant_ids, self.business.sales.merchant[disputes.charge]),
            "dispute_id": _ids(self.spaces["dp"], np.arange(count)),
            "charge_id": _ids(self.spaces["ch"], disputes.charge),
            "amount_minor": _numbers(disputes.amount),
            "fee_minor": _numbers(disputes.fee),
            "currency": _labels(CURRENCIES, self.business.sales.money[disputes.charge]),
            "status": _labels(DISPUTE_STATUSES, disputes.status),
            "reason": _labels(DISPUTE_REASONS, disputes.reason),
            "evidence_due_at": _moments(disputes.created + _EVIDENCE_TIME),
            "closed_at": _moments(disputes.closed),
            "version": _numbers(1 + disputes.steps),
            "created_at": _moments(disputes.created),
            "updated_at": _moments(disputes.updated),
        }
        return Table("core.disputes", count, columns)

    def _balance_transactions(self) -> Table:
        balance, count = self.business.balance, len(self.business.balance.type)
        columns: dict[str, Column] = {
            "merchant_id": _taken(self.merchant_ids, balance.merchant),
            "balance_transaction_id": _ids(self.spaces["txn"], np.arange(count)),
            "type": _labels(TYPES, balance.type),
            "source_id": self._sources(balance.space, balance.source),
            "amount_minor": _numbers(balance.amount),
            "fee_minor": _numbers(balance.fee),
            "net_minor": _numbers(balance.amount - balance.fee),
            "currency": _labels(CURRENCIES, balance.money),
            "available_at": _moments(balance.available),
            "created_at": _moments(balance.created),
        }
        return Table("core.balance_transactions", count, columns)

    def _fee_parts(self) -> Table:
        balance = self.business.balance
        columns: dict[str, Column] = {
            "merchant_id": _taken(self.merchant_ids, balance.merchant[balance.part_of]),
            "balance_transaction_id": _ids(self.spaces["txn"], balance.part_of),
            "type": _labels(FEES, balance.part_type),
            "amount_minor": _numbers(balance.part_amount),
            "currency": _labels(CURRENCIES, balance.money[balance.part_of]),
        }
        return Table("core.balance_transaction_fees", len(balance.part_of), columns)

    def _settlements(self) -> Table:
        settled = self.business.settled
        columns: dict[str, Column] = {
            "merchant_id": _taken(self.merchant_ids, settled.merchant),
            "currency": _labels(CURRENCIES, settled.money),
            "day": _dates(settled.day * DAY),
            "amount_minor": _numbers(settled.amount),
            "net_minor": _numbers(settled.net),
            "settled_at": _moments(settlement_moment(settled.day * DAY)),
        }
        return Table("core.settlements", len(settled.day), columns)

    def _sources(self, space: Ints, source: Ints) -> Column:
        """Return the id of each source: of the space that is named for it, or of a settlement."""

        def column(rows: slice) -> Values:
            spaces, sources = space[rows], source[rows]
            parts, places = [], []
            for code in np.unique(spaces).tolist():
                place = np.flatnonzero(spaces == code)
                name, chosen = SPACES[code], sources[place]
                parts.append(self._settlement_ids(chosen) if name == "day" else self.spaces[name].arrow(chosen))
                places.append(place)
            back = np.argsort(np.concatenate(places), kind="stable")
            return pa.concat_arrays(parts).take(_places(back))

        return column

    def _settlement_ids(self, rows: Ints) -> Values:
        settled = self.business.settled
        day = pa.array(settled.day[rows].astype(np.int32)).cast(pa.date32()).cast(pa.string())
        return _joined(pa.array(CURRENCIES).take(_places(settled.money[rows])), day)

    @cached_property
    def _account_ids(self) -> Values:
        ledger = self.business.ledger
        merchant = self.merchant_ids.take(_places(ledger.account_merchant))
        code = pa.array(CODES).take(_places(ledger.account_code))
        return _joined(merchant, code, pa.array(CURRENCIES).take(_places(ledger.account_money)))

    def _accounts(self) -> Table:
        ledger = self.business.ledger
        is_debit = np.array([code in DEBIT_NORMAL for code in CODES])[ledger.account_code]
        is_protected = np.array([code in PROTECTED for code in CODES])[ledger.account_code]
        columns: dict[str, Column] = {
            "merchant_id": _taken(self.merchant_ids, ledger.account_merchant),
            "ledger_account_id": lambda rows: self._account_ids[rows],
            "code": _labels(CODES, ledger.account_code),
            "currency": _labels(CURRENCIES, ledger.account_money),
            "normal_side": _labels(("C", "D"), is_debit.astype(np.int64)),
            "is_protected": _numbers(is_protected),
            "debits_posted_minor": _numbers(ledger.account_debits),
            "credits_posted_minor": _numbers(ledger.account_credits),
            "debits_pending_minor": _numbers(ledger.account_debits_pending),
            "credits_pending_minor": _numbers(ledger.account_credits_pending),
            "entry_count": _numbers(ledger.account_entries),
            "created_at": _moments(ledger.account_created),
        }
        return Table("ledger.accounts", len(is_debit), columns)

    def _holds(self) -> Table:
        holds, count = self.business.holds, len(self.business.holds.amount)
        merchant, money = (
            self.merchant_ids.take(_places(holds.merchant)),
            pa.array(CURRENCIES).take(_places(holds.money)),
        )

        def accounts(code: str) -> Column:
            ids = _joined(merchant, pa.repeat(code, count), money)
            return lambda rows: ids[rows]

        columns: dict[str, Column] = {
            "merchant_id": lambda rows: merchant[rows],
            "hold_id": _ids(self.spaces["hold"], np.arange(count)),
            "source_id": _ids(self.spaces["ch"], holds.charge),
            "debit_account_id": accounts("card_receivable"),
            "credit_account_id": accounts("merchant_pending"),
            "currency": _labels(CURRENCIES, holds.money),
            "amount_minor": _numbers(holds.amount),
            "posted_minor": _numbers(holds.posted),
            "status": _labels(HOLD_STATUSES, holds.status),
            "version": _numbers(1 + (holds.resolved >= 0)),
            "created_at": _moments(holds.created),
            "expires_at": _moments(holds.created + HELD_FOR),
            "resolved_at": _moments(holds.resolved),
            "updated_at": _moments(np.maximum(holds.created, holds.resolved)),
        }
        return Table("ledger.holds", count, columns)

    def _application_fees(self) -> Table:
        sales, platform = self.business.sales, self.business.platform
        rows = np.flatnonzero(sales.application_fee)
        columns: dict[str, Column] = {
            "merchant_id": _taken(self.merchant_ids, sales.merchant[rows]),
            "application_fee_id": _ids(self.spaces["fee"], np.arange(len(rows))),
            "charge_id": _ids(self.spaces["ch"], rows),
            "application_merchant_id": _taken(self.merchant_ids, platform[sales.merchant[rows]]),
            "amount_minor": _numbers(sales.application_fee[rows]),
            "currency": _labels(CURRENCIES, sales.money[rows]),
            "created_at": _moments(sales.captured[rows]),
        }
        return Table("core.application_fees", len(rows), columns)

    def _ledger_transactions(self) -> Table:
        ledger, count = self.business.ledger, len(self.business.ledger.transaction_kind)
        columns: dict[str, Column] = {
            "merchant_id": _taken(self.merchant_ids, ledger.transaction_merchant),
            "ledger_transaction_id": _ids(self.spaces["lt"], np.arange(count)),
            "kind": _labels(KINDS, ledger.transaction_kind),
            "source_id": self._sources(ledger.transaction_space, ledger.transaction_source),
            "posted_at": _moments(ledger.transaction_posted),
        }
        return Table("ledger.transactions", count, columns)

    def _entries(self) -> Table:
        ledger = self.business.ledger
        columns: dict[str, Column] = {
            "merchant_id": _taken(self.merchant_ids, ledger.transaction_merchant[ledger.entry_transaction]),
            "ledger_transaction_id": _ids(self.spaces["lt"], ledger.entry_transaction),
            "entry_no": _numbers(ledger.entry_no),
            "ledger_account_id": _taken(self._account_ids, ledger.entry_account),
            "currency": _labels(CURRENCIES, ledger.account_money[ledger.entry_account]),
            "side": _labels(("C", "D"), ledger.entry_is_debit.astype(np.int64)),
            "amount_minor": _numbers(ledger.entry_amount),
            "account_entry_no": _numbers(ledger.entry_account_no),
            "balance_after_minor": _numbers(ledger.entry_balance),
            "posted_at": _moments(ledger.transaction_posted[ledger.entry_transaction]),
        }
        return Table("ledger.entries", len(ledger.entry_no), columns)
