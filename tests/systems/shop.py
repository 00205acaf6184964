"""A small business in the operational store, and payments through the SQL functions, as an application makes them."""

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

MERCHANT = "acct_shop"
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Shop:
    """A merchant with one customer and one card; the fee is 2.5 percent plus 30.

    Everything happens at ``at``, by default a noon long past; methods return the id of what they made.
    """

    connection: psycopg.Connection
    merchant_id: str = MERCHANT
    customer_id: str = "cus_ada"
    payment_method_id: str = "pm_ada"
    at: datetime = NOON

    def later(self, **units: float) -> "Shop":
        """Return the same shop at a later moment, for example ``later(days=3)``."""
        return replace(self, at=self.at + timedelta(**units))

    def open(self, currency: str = "EUR", buckets: int = 1) -> "Shop":
        """Insert merchant, customer and card."""
        self.connection.execute(
            """
            insert into core.merchants (
                merchant_id, business_name, mcc, country, default_currency, ledger_buckets, fee_basis_points,
                fee_fixed_minor, created_at, updated_at
            )
            values (%s, 'Shop', '5812', 'FR', %s, %s, 250, 30, %s, %s)
            """,
            (self.merchant_id, currency, buckets, self.at, self.at),
        )
        self.connection.execute(
            """
            insert into core.customers (
                merchant_id, customer_id, merchant_token, network_token, country, city, email_domain,
                has_marketing_consent, consent_at, retention_until, created_at, updated_at
            )
            values (%s, %s, 'mt_1', 'nt_1', 'FR', 'Lyon', 'example.org', true, %s, '2030-01-01', %s, %s)
            """,
            (self.merchant_id, self.customer_id, self.at, self.at, self.at),
        )
        self.connection.execute(
            """
            insert into core.payment_methods (
                merchant_id, payment_method_id, customer_id, type, brand, last4, exp_month, exp_year, funding,
                issuer_country, fingerprint, created_at, updated_at
            )
            values (%s, %s, %s, 'card', 'visa', '4242', 12, 2030, 'credit', 'FR', 'fp_1', %s, %s)
            """,
            (self.merchant_id, self.payment_method_id, self.customer_id, self.at, self.at),
        )
        return self

    def intend(
        self,
        amount: int,
        currency: str = "EUR",
        intent_id: str | None = None,
        *,
        capture_method: str = "automatic",
        application: tuple[str | None, int] = (None, 0),
    ) -> str:
        """Create an intent; an application is the merchant that takes a fee, and the fee."""
        return self._text(
            "select core.create_payment_intent(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            *(self.merchant_id, self.customer_id, amount, currency, self.payment_method_id, intent_id, self.at),
            *(capture_method, *application),
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
            *(self.merchant_id, intent_id, charge_id, failure_code, self.at),
        )

    def pay(self, amount: int, currency: str = "EUR", charge_id: str | None = None, **terms: Any) -> str:
        """Make a successful payment and return the id of the charge."""
        return self.confirm(self.intend(amount, currency, **terms), charge_id)

    def authorize(self, amount: int, currency: str = "EUR", intent_id: str | None = None, **terms: Any) -> str:
        """Authorize a payment that is captured later and return the id of the intent."""
        intent = self.intend(amount, currency, intent_id, capture_method="manual", **terms)
        self.confirm(intent)
        return intent

    def capture(self, intent_id: str, amount: int | None = None) -> str:
        """Capture an authorized payment and return the id of the charge."""
        return self._text(
            "select core.capture_payment_intent(%s, %s, %s, %s)", self.merchant_id, intent_id, amount, self.at
        )

    def cancel(self, intent_id: str, reason: str = "requested_by_customer") -> str:
        """Give a payment up, which voids its authorization."""
        return self._text(
            "select core.cancel_payment_intent(%s, %s, %s, %s)", self.merchant_id, intent_id, reason, self.at
        )

    def expire(self) -> int:
        """Expire what was authorized too long ago, of all merchants, and return how many."""
        return int(self._text("select core.expire_authorizations(%s)", self.at))

    def refund(
        self, charge_id: str, amount: int | None = None, refund_id: str | None = None, *, is_settled: bool = True
    ) -> str:
        """Refund a charge."""
        return self._text(
            "select core.refund_charge(%s, %s, %s, p_refund_id => %s, p_refunded_at => %s, p_is_settled => %s)",
            *(self.merchant_id, charge_id, amount, refund_id, self.at, is_settled),
        )

    def close_refund(self, refund_id: str, outcome: str) -> str:
        """End a refund as succeeded or failed."""
        reason = "lost_or_stolen_card" if outcome == "failed" else None
        return self._text(
            "select core.close_refund(%s, %s, %s, %s, %s)", self.merchant_id, refund_id, outcome, reason, self.at
        )

    def dispute(self, charge_id: str, amount: int | None = None, fee: int = 1500, *, is_inquiry: bool = False) -> str:
        """Open a dispute, or an inquiry, over a charge."""
        return self._text(
            "select core.open_dispute(%s, %s, 'fraudulent', %s, %s, p_opened_at => %s, p_is_inquiry => %s)",
            *(self.merchant_id, charge_id, amount, fee, self.at, is_inquiry),
        )

    def advance(self, dispute_id: str, status: str) -> str:
        """Move a dispute on."""
        return self._text("select core.advance_dispute(%s, %s, %s, %s)", self.merchant_id, dispute_id, status, self.at)

    def close(self, dispute_id: str, outcome: str) -> str:
        """Close a dispute as won or lost."""
        return self._text("select core.close_dispute(%s, %s, %s, %s)", self.merchant_id, dispute_id, outcome, self.at)

    def settle(self, currency: str = "EUR") -> str | None:
        """Settle the day and return the posting."""
        return self._text_or_none("select core.settle_day(%s, %s, %s)", self.merchant_id, currency, self.at.date())

    def payout(self, amount: int | None = None, currency: str = "EUR", payout_id: str | None = None) -> str | None:
        """Pay an amount out, or all that is due; nothing when there is nothing."""
        return self._text_or_none(
            "select core.create_payout(%s, %s, %s, %s, %s)", self.merchant_id, currency, amount, payout_id, self.at
        )

    def advance_payout(self, payout_id: str, status: str) -> str:
        """Move a payout on."""
        code = "account_closed" if status == "failed" else None
        return self._text(
            "select core.advance_payout(%s, %s, %s, %s, %s)", self.merchant_id, payout_id, status, code, self.at
        )

    def transfer(self, destination: str, amount: int, currency: str = "EUR", transfer_id: str | None = None) -> str:
        """Move available funds to another merchant."""
        return self._text(
            "select core.create_transfer(%s, %s, %s, %s, %s, %s)",
            *(self.merchant_id, destination, amount, currency, transfer_id, self.at),
        )

    def reverse_transfer(self, transfer_id: str) -> str:
        """Take a transfer back."""
        return self._text("select core.reverse_transfer(%s, %s, %s)", self.merchant_id, transfer_id, self.at)

    def top_up(self, amount: int, currency: str = "EUR", topup_id: str | None = None) -> str:
        """Add money to the balance."""
        return self._text(
            "select core.create_topup(%s, %s, %s, %s, %s)", self.merchant_id, amount, currency, topup_id, self.at
        )

    def reverse_top_up(self, topup_id: str) -> str:
        """Take a top-up back."""
        return self._text("select core.reverse_topup(%s, %s, %s)", self.merchant_id, topup_id, self.at)

    def convert(self, amount: int, pair: str, rate: str, fee: int = 0, conversion_id: str | None = None) -> str:
        """Convert available funds from the first currency of a pair to the second; the fee is in basis points."""
        source, target = pair.split("/")
        return self._text(
            "select core.convert_currency(%s, %s, %s, %s, %s::numeric, %s, %s, %s)",
            *(self.merchant_id, source, amount, target, rate, fee, conversion_id, self.at),
        )

    def invoice(self, *amounts: int, currency: str = "EUR", discount: int = 0, invoice_id: str | None = None) -> str:
        """Draft an invoice and make it final."""
        lines = [{"description": f"line {number}", "amount_minor": amount} for number, amount in enumerate(amounts)]
        invoice = self._text(
            """
            select core.create_invoice(
                %s, %s, %s, %s, p_discount_minor => %s, p_invoice_id => %s, p_created_at => %s
            )
            """,
            *(self.merchant_id, self.customer_id, currency, Jsonb(lines), discount, invoice_id, self.at),
        )
        return self._text("select core.finalize_invoice(%s, %s, %s)", self.merchant_id, invoice, self.at)

    def pay_invoice(self, invoice_id: str, failure_code: str | None = None) -> str:
        """Attempt to pay an invoice and return the id of the charge."""
        return self._text(
            "select core.pay_invoice(%s, %s, %s, %s, %s)",
            *(self.merchant_id, invoice_id, self.payment_method_id, failure_code, self.at),
        )

    def credit(self, invoice_id: str, amount: int, credit_note_id: str | None = None) -> str:
        """Write a credit note over a part of an invoice."""
        return self._text(
            "select core.credit_invoice(%s, %s, %s, 'order_change', %s, %s)",
            *(self.merchant_id, invoice_id, amount, credit_note_id, self.at),
        )

    def end_invoice(self, invoice_id: str, status: str = "void") -> str:
        """Make an invoice void or uncollectible."""
        return self._text("select core.end_invoice(%s, %s, %s, %s)", self.merchant_id, invoice_id, status, self.at)

    def monthly_price(self, amount: int, currency: str = "EUR", price_id: str = "price_monthly") -> str:
        """Insert a product with a price a month."""
        product_id = price_id.replace("price_", "prod_")
        self.connection.execute(
            "insert into core.products (merchant_id, product_id, product_name, created_at, updated_at) "
            "values (%s, %s, 'Box', %s, %s)",
            (self.merchant_id, product_id, self.at, self.at),
        )
        self.connection.execute(
            """
            insert into core.prices (
                merchant_id, price_id, product_id, currency, unit_amount_minor, billing_interval, interval_count,
                created_at, updated_at
            )
            values (%s, %s, %s, %s, %s, 'month', 1, %s, %s)
            """,
            (self.merchant_id, price_id, product_id, currency, amount, self.at, self.at),
        )
        return price_id

    def coupon(self, basis_points: int, duration: str = "once", coupon_id: str = "co_spring") -> str:
        """Insert a coupon of a share off."""
        self.connection.execute(
            """
            insert into core.coupons (
                merchant_id, coupon_id, percent_off_basis_points, duration, created_at, updated_at
            )
            values (%s, %s, %s, %s, %s, %s)
            """,
            (self.merchant_id, coupon_id, basis_points, duration, self.at, self.at),
        )
        return coupon_id

    def subscribe(self, price_id: str, quantity: int = 1, coupon_id: str | None = None) -> str:
        """Begin a subscription."""
        return self._text(
            "select core.create_subscription(%s, %s, %s, %s, %s, %s, null, %s)",
            *(self.merchant_id, self.customer_id, price_id, quantity, self.payment_method_id, coupon_id, self.at),
        )

    def bill(self, subscription_id: str, failure_code: str | None = None) -> str | None:
        """Bill the period of a subscription that is due and return the invoice; nothing when none is."""
        return self._text_or_none(
            "select core.bill_subscription(%s, %s, %s, %s)", self.merchant_id, subscription_id, failure_code, self.at
        )

    def call(self, key: str | None, operation: str, **parameters: object) -> dict[str, Any]:
        """Ask the API, as an application does, and return its answer."""
        self.connection.execute("select set_config('app.merchant_id', %s, false)", (self.merchant_id,))
        row = self.connection.execute(
            "select api.call(%s, %s, %s, %s)", (self.merchant_id, key, operation, Jsonb(parameters))
        ).fetchone()
        assert row is not None
        answer: dict[str, Any] = row[0]
        return answer

    def balances(self) -> dict[str, int]:
        """Return the balance of every ledger account of this merchant on its normal side, by code and currency.

        Buckets are added up: ``{"bank:EUR": 36000}``.
        """
        rows = self.connection.execute(
            """
            select
                code || ':' || currency,
                sum(case normal_side when 'D' then 1 else -1 end * (debits_posted_minor - credits_posted_minor))::bigint
            from ledger.accounts
            where merchant_id = %s
            group by 1
            """,
            (self.merchant_id,),
        )
        return dict(rows.fetchall())

    def _text(self, query: str, *parameters: object) -> str:
        found = self._text_or_none(query, *parameters)
        assert found is not None
        return found

    def _text_or_none(self, query: str, *parameters: object) -> str | None:
        row = self.connection.execute(query.encode(), parameters).fetchone()
        return None if row is None or row[0] is None else str(row[0])


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


def busy_market(connection: psycopg.Connection) -> Shop:
    """Let everything else happen after a busy day: every kind of posting, and every object in each of its ends."""
    shop = busy_day(connection).later(days=1)
    market = Shop(connection, "acct_market").open(buckets=4)
    # Authorizations: captured in part, voided, expired, and one still held.
    shop.capture(shop.authorize(2_000, intent_id="pi_part"), 1_200)
    shop.cancel(shop.authorize(900))
    shop.authorize(800)
    shop.later(days=8).expire()
    shop.authorize(600, intent_id="pi_held")
    # A refund on its way, one that failed on its way, one that failed after it had succeeded.
    shop.refund("ch_6", 100, "re_open", is_settled=False)
    shop.close_refund(shop.refund("ch_6", 200, is_settled=False), "failed")
    shop.close_refund(shop.refund("ch_6", 300), "failed")
    shop.advance(shop.dispute("ch_7", 400, is_inquiry=True), "needs_response")
    shop.advance(shop.dispute("ch_8", 500, is_inquiry=True), "warning_closed")
    # Money between books: a fee of the market, a transfer, one taken back.
    for number in range(4):
        market.pay(5_000 + number)
    shop.pay(4_000, charge_id="ch_fee", application=("acct_market", 250))
    shop.transfer("acct_market", 700, transfer_id="tr_kept")
    shop.reverse_transfer(shop.transfer("acct_market", 900, transfer_id="tr_back"))
    shop.top_up(10_000, topup_id="tu_kept")
    shop.reverse_top_up(shop.top_up(400, topup_id="tu_back"))
    shop.convert(3_000, "EUR/JPY", "163.4567", 50, "fx_1")
    shop.convert(1_000, "EUR/KWD", "0.3345", 0, "fx_2")
    # Payouts: one under way, one paid, one that failed, one that came back, and an automatic one.
    shop.payout(1_000, payout_id="po_open")
    for payout, ends in {
        "po_paid": ["paid"],
        "po_failed": ["failed"],
        "po_back": ["in_transit", "paid", "failed"],
    }.items():
        shop.payout(500, payout_id=payout)
        for end in ends:
            shop.advance_payout(payout, end)
    market.later(days=3).payout(payout_id="po_automatic")
    # Invoices: paid, credited and void, uncollectible, open; a subscription with a coupon and a failed payment.
    shop = shop.later(days=4)
    shop.pay_invoice(shop.invoice(1_500, 500, discount=100, invoice_id="in_paid"))
    shop.credit("in_paid", 300)
    shop.credit(shop.invoice(1_000, invoice_id="in_credited"), 400)
    shop.end_invoice("in_credited")
    shop.end_invoice(shop.invoice(700), "uncollectible")
    shop.credit(shop.invoice(1_100, invoice_id="in_open"), 100)
    subscription = shop.subscribe(shop.monthly_price(2_500), 2, shop.coupon(2_000))
    shop.bill(subscription)
    shop.later(days=32).bill(subscription, "insufficient_funds")
    connection.execute("select core.propose_adjustment('acct_shop', -250, 'EUR', 'a fee that was forgotten', 'adj_1')")
    connection.execute("select core.propose_adjustment('acct_shop', 90, 'EUR', 'a rounding of last year', 'adj_2')")
    connection.execute("set session authorization payments_operator")
    connection.execute("select core.decide_adjustment('acct_shop', 'adj_1', 'approved')")
    connection.execute("select core.decide_adjustment('acct_shop', 'adj_2', 'rejected')")
    connection.execute("reset session authorization")
    seal(connection)
    return shop


def seal(connection: psycopg.Connection) -> int:
    """Seal all postings and return how many; a transaction that runs in the background makes seals wait for its end."""
    sealed = 0
    for _ in range(500):
        sealed += int(one(connection, "select ledger.seal()")[0])
        unsealed = "recorded_xid >= coalesce((select max(to_xid) from ledger.seals), '0')"
        if one(connection, f"select not exists (select from ledger.transactions where {unsealed})")[0]:
            return sealed
        time.sleep(0.02)
    raise AssertionError("a transaction that does not end keeps the ledger from being sealed")


def one(connection: psycopg.Connection, query: str, *parameters: object) -> tuple[Any, ...]:
    """Return the one row of a query."""
    (row,) = connection.execute(query.encode(), parameters).fetchall()
    return tuple(row)
