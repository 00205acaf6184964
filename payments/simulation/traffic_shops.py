"""The merchants that live traffic runs through: made once for a seed, then found again."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import UUID

from psycopg import Connection
from psycopg.types.json import Jsonb

from payments.vault import KeyRing, card_fingerprint, encrypt_field, merchant_token, network_token, new_data_key, wrap

ROLE = "payments_app"
SHOPS = 8
CUSTOMERS = 12
OPENING_MINOR = 5_000_000
"""What each shop is topped up with at first, so that it can pay out and transfer."""

_RETENTION = timedelta(days=3 * 365)
_PLACES = (("FR", "Lyon", "EUR"), ("US", "Boston", "USD"), ("JP", "Osaka", "JPY"), ("DE", "Kiel", "EUR"))


@dataclass(frozen=True)
class Shop:
    """One merchant with its customers, a card each, and a monthly price."""

    merchant_id: str
    currency: str
    country: str
    city: str
    customers: tuple[tuple[str, str], ...]
    """(customer id, payment method id) of each."""
    price_id: str
    ledger_buckets: int


def shops(seed: int) -> list[Shop]:
    """Return the shops of a seed; the second one is spread over four ledger buckets, as a busy merchant is."""
    found = []
    for number in range(SHOPS):
        country, city, currency = _PLACES[number % len(_PLACES)]
        name = f"traffic{seed}x{number}"
        customers = tuple((f"cus_{name}x{k}", f"pm_{name}x{k}") for k in range(CUSTOMERS))
        found.append(Shop(f"acct_{name}", currency, country, city, customers, f"price_{name}", 4 if number == 1 else 1))
    return found


def open_shops(connection: Connection, ring: KeyRing, seed: int) -> list[Shop]:
    """Make the shops of a seed that are missing, each in a transaction of its own, and return all.

    The platform takes on the merchant; the rest the merchant's application does, as the role that applications have.

    Args:
        connection: a connection of the platform's owner, not in a transaction.
        ring: the key ring for tokens and for the identities of the customers.
        seed: names the shops.
    """
    today = datetime.now(UTC).date()
    with connection.transaction():
        connection.execute("select ops.ensure_months(%s, %s)", (today, today + timedelta(days=31)))
    found = shops(seed)
    for shop in found:
        with connection.transaction():
            if _take_on(connection, shop):
                _furnish(connection, ring, shop)
    return found


def _take_on(connection: Connection, shop: Shop) -> bool:
    """Insert the merchant; say whether it is new."""
    made = connection.execute(
        """
        insert into core.merchants (
            merchant_id, business_name, mcc, country, default_currency, ledger_buckets, created_at, updated_at
        )
        values (%s, %s, '5812', %s, %s, %s, now(), now())
        on conflict do nothing
        """,
        (shop.merchant_id, f"Traffic in {shop.city}", shop.country, shop.currency, shop.ledger_buckets),
    )
    return made.rowcount == 1


def _furnish(connection: Connection, ring: KeyRing, shop: Shop) -> None:
    connection.execute(f"set local role {ROLE}")
    connection.execute("select set_config('app.merchant_id', %s, true)", (shop.merchant_id,))
    for customer_id, payment_method_id in shop.customers:
        _add_customer(connection, ring, shop, customer_id, payment_method_id)
    product_id = shop.price_id.replace("price_", "prod_")
    connection.execute(
        """
        insert into core.products (merchant_id, product_id, product_name, created_at, updated_at)
        values (%s, %s, 'Membership', now(), now())
        """,
        (shop.merchant_id, product_id),
    )
    connection.execute(
        """
        insert into core.prices (
            merchant_id, price_id, product_id, currency, unit_amount_minor, billing_interval, interval_count,
            created_at, updated_at
        )
        values (%s, %s, %s, %s, 1900, 'month', 1, now(), now())
        """,
        (shop.merchant_id, shop.price_id, product_id, shop.currency),
    )
    connection.execute(
        "select api.call(%s, 'opening', 'topups.create', %s)",
        (shop.merchant_id, Jsonb({"amount_minor": OPENING_MINOR, "currency": shop.currency})),
    )


def _add_customer(connection: Connection, ring: KeyRing, shop: Shop, customer_id: str, payment_method_id: str) -> None:
    email = f"{customer_id.removeprefix('cus_')}@example.org"
    subject_id = UUID(bytes=sha256(email.encode()).digest()[:16], version=4)
    data_key = new_data_key()
    connection.execute(
        "insert into vault.subjects (subject_id, key_id, wrapped_key) values (%s, %s, %s)",
        (subject_id, ring.active_key_id, wrap(ring, data_key, subject_id)),
    )
    connection.execute(
        """
        insert into core.customers (
            merchant_id, customer_id, merchant_token, network_token, country, city, email_domain,
            has_marketing_consent, consent_at, retention_until, created_at, updated_at
        )
        values (%s, %s, %s, %s, %s, %s, 'example.org', false, now(), %s, now(), now())
        """,
        (
            shop.merchant_id,
            customer_id,
            merchant_token(ring, shop.merchant_id, email),
            network_token(ring, email),
            shop.country,
            shop.city,
            datetime.now(UTC).date() + _RETENTION,
        ),
    )
    identity = {
        "name": f"Traffic {customer_id[-2:]}",
        "email": email,
        "phone": "+33100000000",
        "address": f"1 Test Road, {shop.city}",
    }
    connection.execute(
        """
        insert into identity.customers (
            merchant_id, customer_id, subject_id, name_encrypted, email_encrypted, phone_encrypted, address_encrypted
        )
        values (%s, %s, %s, %s, %s, %s, %s)
        """,
        (
            shop.merchant_id,
            customer_id,
            subject_id,
            *(encrypt_field(data_key, text, field) for field, text in identity.items()),
        ),
    )
    connection.execute(
        """
        insert into core.payment_methods (
            merchant_id, payment_method_id, customer_id, type, brand, last4, exp_month, exp_year, funding,
            issuer_country, fingerprint, created_at, updated_at
        )
        values (%s, %s, %s, 'card', 'visa', '4242', 12, 2035, 'credit', %s, %s, now(), now())
        """,
        (
            shop.merchant_id,
            payment_method_id,
            customer_id,
            shop.country,
            card_fingerprint(ring, payment_method_id),
        ),
    )
