"""A small business in the operational store, and payments through the SQL functions, as an application makes them."""

from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg

MERCHANT = "acct_shop"
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Shop:
    """A merchant with one customer and one card; the fee is 2.5 percent plus 30."""

    connection: psycopg.Connection
    merchant_id: str = MERCHANT
    customer_id: str = "cus_ada"
    payment_method_id: str = "pm_ada"

    def open(self, currency: str = "EUR") -> "Shop":
        """Insert merchant, customer and card."""
        self.connection.execute(
            """
            insert into core.merchants (
                merchant_id, business_name, mcc, country, default_currency, fee_basis_points, fee_fixed_minor,
                created_at, updated_at
            )
            values (%s, 'Shop', '5812', 'FR', %s, 250, 30, %s, %s)
            """,
            (self.merchant_id, currency, NOON, NOON),
        )
        self.connection.execute(
            """
            insert into core.customers (
                merchant_id, customer_id, merchant_token, network_token, country, city, email_domain,
                has_marketing_consent, consent_at, retention_until, created_at, updated_at
            )
            values (%s, %s, 'mt_1', 'nt_1', 'FR', 'Lyon', 'example.org', true, %s, '2030-01-01', %s, %s)
            """,
            (self.merchant_id, self.customer_id, NOON, NOON, NOON),
        )
        self.connection.execute(
            """
            insert into core.payment_methods (
                merchant_id, payment_method_id, customer_id, type, brand, last4, exp_month, exp_year, funding,
                issuer_country, fingerprint, created_at, updated_at
            )
            values (%s, %s, %s, 'card', 'visa', '4242', 12, 2030, 'credit', 'FR', 'fp_1', %s, %s)
            """,
            (self.merchant_id, self.payment_method_id, self.customer_id, NOON, NOON),
        )
        return self

    def intend(self, amount: int, currency: str = "EUR", intent_id: str | None = None) -> str:
        """Create an intent and return its id."""
        return self._text(
            "select core.create_payment_intent(%s, %s, %s, %s, %s, %s, %s)",
            self.merchant_id,
            self.customer_id,
            amount,
            currency,
            self.payment_method_id,
            intent_id,
            NOON,
        )

    def confirm(self, intent_id: str, charge_id: str | None = None, failure_code: str | None = None) -> str:
        """Attempt an intent and return the id of the charge."""
        return self._text(
            """
            select core.confirm_payment_intent(
                %s, %s, p_charge_id => %s, p_failure_code => %s, p_ip_country => 'FR', p_device_type => 'mobile',
                p_anomaly_score => 0.1, p_confirmed_at => %s
            )
            """,
            self.merchant_id,
            intent_id,
            charge_id,
            failure_code,
            NOON,
        )

    def pay(self, amount: int, currency: str = "EUR", charge_id: str | None = None) -> str:
        """Make a successful payment and return the id of the charge."""
        return self.confirm(self.intend(amount, currency), charge_id)

    def refund(self, charge_id: str, amount: int | None = None, refund_id: str | None = None) -> str:
        """Refund a charge and return the id of the refund."""
        return self._text(
            "select core.refund_charge(%s, %s, %s, p_refund_id => %s, p_refunded_at => %s)",
            self.merchant_id,
            charge_id,
            amount,
            refund_id,
            NOON,
        )

    def dispute(self, charge_id: str, amount: int | None = None, fee: int = 1500) -> str:
        """Open a dispute over a charge and return its id."""
        return self._text(
            "select core.open_dispute(%s, %s, 'fraudulent', %s, %s, p_opened_at => %s)",
            self.merchant_id,
            charge_id,
            amount,
            fee,
            NOON,
        )

    def close(self, dispute_id: str, outcome: str) -> None:
        """Close a dispute as won or lost."""
        self.connection.execute(
            "select core.close_dispute(%s, %s, %s, %s)", (self.merchant_id, dispute_id, outcome, NOON)
        )

    def settle(self, currency: str = "EUR") -> str | None:
        """Settle the day of all charges and return the posting."""
        row = self.connection.execute(
            "select core.settle_day(%s, %s, %s)", (self.merchant_id, currency, NOON.date())
        ).fetchone()
        return None if row is None else row[0]

    def balances(self) -> dict[str, int]:
        """Return the balance of every ledger account on its normal side."""
        rows = self.connection.execute(
            """
            select ledger_account_id,
                case normal_side when 'D' then 1 else -1 end * (debits_posted_minor - credits_posted_minor)
            from ledger.accounts
            """
        )
        return dict(rows.fetchall())

    def _text(self, query: str, *parameters: object) -> str:
        row = self.connection.execute(query.encode(), parameters).fetchone()
        assert row is not None
        return str(row[0])


def busy_day(connection: psycopg.Connection) -> Shop:
    """Let everything happen: payments that fail and succeed, refunds, disputes won, lost and open, a settlement."""
    shop = Shop(connection).open()
    for number in range(1, 9):
        shop.pay(number * 1_000, charge_id=f"ch_{number}")
    shop.confirm(shop.intend(500), failure_code="card_declined")
    shop.pay(700, "JPY")
    shop.settle()
    shop.refund("ch_1")
    shop.refund("ch_2", 500)
    shop.refund("ch_2", 300)
    shop.close(shop.dispute("ch_3"), "won")
    shop.close(shop.dispute("ch_4"), "lost")
    shop.dispute("ch_5", 2_000)
    return shop
