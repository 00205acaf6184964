"""The history as tables of the operational store: the columns of each, made slice by slice to keep memory small."""

import hashlib
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from payments.simulation.aftermath import DISPUTE_REASONS, DISPUTE_STATUSES, REFUND_REASONS, REFUND_STATUSES
from payments.simulation.arrays import Ints, Values
from payments.simulation.balance_tables import balance_tables
from payments.simulation.billing_tables import billing_tables
from payments.simulation.business import CANCELED, CANCELLATION_REASONS, INTENT_STATUSES
from payments.simulation.checkout_tables import checkout_tables
from payments.simulation.columns import (
    CURRENCIES,
    Column,
    Table,
    constant,
    dates,
    given,
    hex_bytes,
    keys,
    labels,
    moments,
    numbers,
    positions,
    taken,
)
from payments.simulation.identities import Person
from payments.simulation.ids import hashes
from payments.simulation.ledger_tables import ledger_tables
from payments.simulation.names import Names
from payments.simulation.plan import DAY
from payments.simulation.population import BANK_DEBIT, CITIES, CITY_COUNTRY, INSTRUMENT_TYPES
from payments.simulation.purchases import CHARGE_STATUSES
from payments.simulation.world import BRANDS, CATEGORIES, COUNTRIES, DEVICE_TYPES, FAILURES, FUNDINGS
from payments.vault import KeyRing, card_fingerprint, merchant_token, network_prefix_token, network_token

COUNTRY_CODES = tuple(country.code for country in COUNTRIES)
_RETENTION = 2557 * DAY  # seven years
_EVIDENCE_TIME = 14 * DAY
_SHOP_WORDS = (
    "Harbour", "Maple", "Silver", "Northern", "Cedar", "Lantern", "Blue", "Copper", "Garden", "Summit",
    "River", "Amber", "Willow", "Orchid", "Atlas", "Beacon", "Meadow", "Coral", "Granite", "Juniper",
    "Velvet", "Falcon", "Ivory", "Sable", "Tulip", "Violet", "Walnut", "Zephyr", "Comet", "Delta",
)  # fmt: skip


class Tables(Names):
    """All tables of a history."""

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
            business.treasury.payouts.amount,
            business.billing.invoices.created,
            business.billing.endings.updated,
            business.sessions.updated,
            business.reviews.created,
            business.warnings.created,
        ):
            digest.update(np.ascontiguousarray(values).tobytes())
        sample = np.arange(min(64, len(business.sales.amount)))
        digest.update(self.spaces["ch"].matrix(sample).tobytes())
        return digest.hexdigest()

    def all(self, ring: KeyRing) -> list[Table]:
        """Return every table; identity is encrypted and tokens are made with this ring, when a slice is asked for.

        The large tables come first: the server sorts their indexes while those with costly columns are still made.
        """
        entries, *ledger = ledger_tables(self)
        balance_transactions, *balance = balance_tables(self)
        return [
            entries,
            balance_transactions,
            self._intents(),
            self._charges(ring),
            *ledger,
            *balance,
            *billing_tables(self),
            *checkout_tables(self),
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
            "merchant_id": given(self.merchant_ids),
            "business_name": given(names),
            "mcc": labels([entry.mcc for entry in CATEGORIES], merchants.category),
            "country": labels(COUNTRY_CODES, merchants.country),
            "default_currency": labels(CURRENCIES, merchants.money),
            "status": labels(("active", "restricted"), merchants.status),
            "fee_basis_points": numbers(merchants.fee_basis_points),
            "fee_fixed_minor": numbers(merchants.fee_fixed),
            "created_at": moments(merchants.created),
            "updated_at": moments(merchants.created),
        }
        return Table("core.merchants", count, columns)

    def _subjects(self, ring: KeyRing) -> Table:
        subjects = self.business.population.subjects
        known_since = np.full(len(subjects.country), self.business.plan.end_moment)
        np.minimum.at(known_since, self.business.population.customers.subject, self.business.customer_created)
        ids = pa.array([str(subject) for subject in self.identities.subject_ids])
        columns: dict[str, Column] = {
            "subject_id": given(ids),
            "key_id": constant(ring.active_key_id, len(ids)),
            "wrapped_key": lambda rows: hex_bytes(self.identities.wrapped_keys(ring, rows)),
            "created_at": moments(known_since),
        }
        return Table("vault.subjects", len(ids), columns)

    def _customers(self, ring: KeyRing) -> Table:
        customers, subjects = self.business.population.customers, self.business.population.subjects
        merchant_ids: list[Any] = self.merchant_ids.to_pylist()

        def persons(rows: Ints) -> list[Person]:
            return [self.identities.persons[row] for row in customers.subject[rows].tolist()]

        def scoped(rows: Ints) -> Values:
            pairs = zip(customers.merchant[rows].tolist(), persons(rows), strict=True)
            return pa.array([merchant_token(ring, merchant_ids[shop], person.email) for shop, person in pairs])

        created = self.business.customer_created
        columns: dict[str, Column] = {
            "merchant_id": taken(self.merchant_ids, customers.merchant),
            "customer_id": given(self.customer_ids),
            "merchant_token": scoped,
            "network_token": lambda rows: pa.array([network_token(ring, person.email) for person in persons(rows)]),
            "country": labels(COUNTRY_CODES, subjects.country[customers.subject]),
            "city": labels(CITIES, subjects.city[customers.subject]),
            "email_domain": lambda rows: pa.array([person.email_domain for person in persons(rows)]),
            "has_marketing_consent": numbers(customers.has_consent),
            "consent_at": moments(created),
            "retention_until": dates(created + _RETENTION),
            "created_at": moments(created),
            "updated_at": moments(created),
        }
        return Table("core.customers", len(created), columns)

    def _identity(self) -> Table:
        customers = self.business.population.customers
        ids = pa.array([str(subject) for subject in self.identities.subject_ids])

        def encrypted(field: str) -> Column:
            return lambda rows: hex_bytes(self.identities.encrypted(field, customers.subject[rows]))

        columns: dict[str, Column] = {
            "merchant_id": taken(self.merchant_ids, customers.merchant),
            "customer_id": given(self.customer_ids),
            "subject_id": taken(ids, customers.subject),
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

        def fingerprints(rows: Ints) -> Values:
            cards = methods.instrument[rows].tolist()
            return pa.array([card_fingerprint(ring, f"card:{seed}:{card}") for card in cards])

        kind, expiry = instruments.kind[methods.instrument], instruments.expiry_month[methods.instrument]
        without_card = kind == BANK_DEBIT
        created = self.business.method_created
        columns: dict[str, Column] = {
            "merchant_id": taken(self.merchant_ids, population.customers.merchant[methods.customer]),
            "payment_method_id": given(self.method_ids),
            "customer_id": taken(self.customer_ids, methods.customer),
            "type": labels(INSTRUMENT_TYPES, kind),
            "brand": labels(BRANDS, np.where(without_card, -1, instruments.brand[methods.instrument])),
            "last4": labels([f"{number:04d}" for number in range(10_000)], instruments.last4[methods.instrument]),
            "exp_month": numbers(expiry % 12 + 1, without_card),
            "exp_year": numbers(expiry // 12, without_card),
            "funding": labels(FUNDINGS, np.where(without_card, -1, instruments.funding[methods.instrument])),
            "issuer_country": labels(COUNTRY_CODES, instruments.issuer[methods.instrument]),
            "fingerprint": fingerprints,
            "created_at": moments(created),
            "updated_at": moments(created),
        }
        return Table("core.payment_methods", len(created), columns)

    def _intents(self) -> Table:
        business = self.business
        intents, count = business.intents, len(business.intents.created)
        endings, merchant = business.endings, business.population.customers.merchant[intents.customer]
        application = np.where(business.application_fee > 0, business.platform[merchant], -1)
        columns: dict[str, Column] = {
            "merchant_id": taken(self.merchant_ids, merchant),
            "payment_intent_id": keys(self.spaces["pi"], np.arange(count)),
            "customer_id": taken(self.customer_ids, intents.customer),
            "payment_method_id": taken(self.method_ids, intents.method),
            "amount_minor": numbers(intents.amount),
            "amount_capturable_minor": numbers(endings.capturable),
            "amount_received_minor": numbers(endings.received),
            "currency": labels(CURRENCIES, intents.money),
            "capture_method": labels(("automatic", "manual"), business.is_manual.astype(np.int64)),
            "application_merchant_id": taken(self.merchant_ids, application),
            "application_fee_minor": numbers(business.application_fee),
            "cancellation_reason": labels(CANCELLATION_REASONS, endings.reason),
            "canceled_at": moments(np.where(endings.status == CANCELED, endings.updated, -1)),
            "status": labels(INTENT_STATUSES, endings.status),
            "version": numbers(endings.version),
            "created_at": moments(intents.created),
            "updated_at": moments(endings.updated),
        }
        return Table("core.payment_intents", count, columns, self.by_merchant(merchant))

    def _charges(self, ring: KeyRing) -> Table:
        business = self.business
        charges, count = business.charges, len(business.charges.created)
        is_disputed = np.zeros(count, np.bool_)
        is_disputed[business.disputes.charge] = True

        @cache
        def tokens() -> Values:
            return pa.array([network_prefix_token(ring, address) for address in self._network_addresses()])

        columns: dict[str, Column] = {
            "merchant_id": taken(self.merchant_ids, business.sales.merchant),
            "charge_id": keys(self.spaces["ch"], np.arange(count)),
            "payment_intent_id": keys(self.spaces["pi"], charges.intent),
            "customer_id": taken(self.customer_ids, business.charge_customer),
            "payment_method_id": taken(self.method_ids, charges.method),
            "amount_minor": numbers(business.sales.amount),
            "amount_captured_minor": numbers(business.sales.captured_amount),
            "amount_refunded_minor": numbers(business.charge_refunded),
            "currency": labels(CURRENCIES, business.sales.money),
            "status": labels(CHARGE_STATUSES, charges.status),
            "failure_code": labels(FAILURES, charges.failure),
            "captured_at": moments(business.sales.captured),
            "is_disputed": numbers(is_disputed),
            "ip_country": labels(COUNTRY_CODES, CITY_COUNTRY[charges.city]),
            "ip_city": labels(CITIES, charges.city),
            "ip_network_token": lambda rows: tokens().take(positions(charges.network[rows])),
            "device_id": lambda rows: self.device_ids(charges.device[rows]),
            "device_type": labels(DEVICE_TYPES, charges.device_type),
            "anomaly_score": lambda rows: pa.array(business.charge_score[rows] / 10_000),
            "version": numbers(business.charge_version),
            "created_at": moments(charges.created),
            "updated_at": moments(business.charge_updated),
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
            "merchant_id": taken(self.merchant_ids, self.business.sales.merchant[refunds.charge]),
            "refund_id": keys(self.spaces["re"], np.arange(count)),
            "charge_id": keys(self.spaces["ch"], refunds.charge),
            "amount_minor": numbers(refunds.amount),
            "currency": labels(CURRENCIES, self.business.sales.money[refunds.charge]),
            "status": labels(REFUND_STATUSES, refunds.status),
            "failure_reason": labels(("lost_or_stolen_card", "expired_or_canceled_card"), failure),
            "reason": labels(REFUND_REASONS, refunds.reason),
            "version": numbers(1 + (refunds.settled >= 0) + (refunds.failed >= 0)),
            "created_at": moments(refunds.created),
            "updated_at": moments(np.maximum(refunds.created, np.maximum(refunds.settled, refunds.failed))),
        }
        return Table("core.refunds", count, columns)

    def _disputes(self) -> Table:
        disputes, count = self.business.disputes, len(self.business.disputes.charge)
        columns: dict[str, Column] = {
            "merchant_id": taken(self.merchant_ids, self.business.sales.merchant[disputes.charge]),
            "dispute_id": keys(self.spaces["dp"], np.arange(count)),
            "charge_id": keys(self.spaces["ch"], disputes.charge),
            "amount_minor": numbers(disputes.amount),
            "fee_minor": numbers(disputes.fee),
            "currency": labels(CURRENCIES, self.business.sales.money[disputes.charge]),
            "status": labels(DISPUTE_STATUSES, disputes.status),
            "reason": labels(DISPUTE_REASONS, disputes.reason),
            "evidence_due_at": moments(disputes.created + _EVIDENCE_TIME),
            "closed_at": moments(disputes.closed),
            "version": numbers(1 + disputes.steps),
            "created_at": moments(disputes.created),
            "updated_at": moments(disputes.updated),
        }
        return Table("core.disputes", count, columns)
