"""Payments through the SQL functions: all or nothing, never twice, never beyond what was captured, for ever."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import errors

from payments.systems.oltp.check import check
from payments.systems.oltp.connection import connect
from payments.systems.oltp.invariants.payments import VERSIONED
from tests.systems.shop import NOON, Shop, busy_day, busy_market, one, seal


def broken() -> list[str]:
    return [f"{result.name}: {result.detail}" for result in check() if not result.passed]


def test_a_payment_makes_charge_balance_transaction_and_posting(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    charge = shop.pay(10_010)
    # 2.5 percent of 10010 is 250.25, rounded 250, plus 30.
    assert one(oltp, "select charge_id, status, amount_captured_minor, currency from core.charges") == (
        charge,
        "succeeded",
        10_010,
        "EUR",
    )
    assert one(oltp, "select status, amount_received_minor from core.payment_intents") == ("succeeded", 10_010)
    assert one(oltp, "select type, source_id, amount_minor, fee_minor, net_minor from core.balance_transactions") == (
        *("charge", charge),
        *(10_010, 280, 9_730),
    )
    assert one(oltp, "select type, amount_minor from core.balance_transaction_fees") == ("processing_fee", 280)
    entries = oltp.execute(
        "select entry_no, ledger_account_id, side, amount_minor, account_entry_no, balance_after_minor, posted_at "
        "from ledger.entries order by entry_no"
    ).fetchall()
    assert entries == [
        (1, "acct_shop:card_receivable:EUR", "D", 10_010, 1, 10_010, NOON),
        (2, "acct_shop:merchant_pending:EUR", "C", 9_730, 1, 9_730, NOON),
        (3, "acct_shop:fee_revenue:EUR", "C", 280, 1, 280, NOON),
    ]
    assert one(oltp, "select event_type, object_id, object_version from ops.outbox") == ("charge.succeeded", charge, 1)
    assert broken() == []


def test_a_busy_day_ends_with_the_right_balances(oltp: psycopg.Connection) -> None:
    shop = busy_day(oltp)
    assert broken() == []
    charged, fees = 36_000, 36_000 // 40 + 8 * 30
    balances = shop.balances()
    assert balances["merchant_pending:EUR"] == 0
    assert balances["card_receivable:EUR"] == 0
    assert balances["fee_revenue:EUR"] == fees + 3 * 1_500
    assert balances["dispute_clearing:EUR"] == 2_000
    assert balances["bank:EUR"] == charged - 1_000 - 800 - 4_000
    assert balances["merchant_available:EUR"] == charged - fees - 1_800 - 4_000 - 2_000 - 3 * 1_500
    # 2.5 percent of 700 is 17.5, rounded to the even 18.
    assert balances["merchant_pending:JPY"] == 700 - 18 - 30


@pytest.mark.parametrize(
    ("amount", "basis_points", "fixed", "fee"),
    [
        (1_000, 250, 0, 25),
        (20, 250, 0, 0),  # 0.5 goes to the even 0
        (60, 250, 0, 2),  # 1.5 goes to the even 2
        (100, 250, 0, 2),  # 2.5 goes to the even 2
        (140, 250, 0, 4),  # 3.5 goes to the even 4
        (101, 250, 0, 3),
        (10, 290, 30, 10),
        (1, 10_000, 0, 1),
        (9_000_000_000_000_000_000, 10_000, 0, 9_000_000_000_000_000_000),
        (500, 0, 0, 0),
    ],
)
def test_fee_is_rounded_half_even(
    oltp: psycopg.Connection, amount: int, basis_points: int, fixed: int, fee: int
) -> None:
    assert oltp.execute("select core.charge_fee(%s, %s, %s)", (amount, basis_points, fixed)).fetchone() == (fee,)


def test_a_declined_attempt_posts_nothing_and_the_next_may_succeed(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    intent = shop.intend(1_000)
    shop.confirm(intent, failure_code="insufficient_funds")
    assert one(oltp, "select status, amount_received_minor from core.payment_intents") == ("requires_payment_method", 0)
    assert one(oltp, "select count(*) from ledger.transactions") == (0,)
    assert one(oltp, "select count(*) from core.balance_transactions") == (0,)
    shop.confirm(intent)
    assert one(oltp, "select status, amount_received_minor from core.payment_intents") == ("succeeded", 1_000)
    assert broken() == []


def test_the_same_call_again_changes_nothing(oltp: psycopg.Connection) -> None:
    shop, other = Shop(oltp).open(), Shop(oltp, "acct_other").open()
    assert shop.intend(1_000, intent_id="pi_a") == shop.intend(1_000, intent_id="pi_a") == "pi_a"
    assert shop.confirm("pi_a", "ch_a") == shop.confirm("pi_a", "ch_a") == "ch_a"
    assert shop.refund("ch_a", 400, "re_a") == shop.refund("ch_a", 400, "re_a") == "re_a"
    dispute = shop.dispute("ch_a", 600)
    shop.close(dispute, "won")
    shop.close(dispute, "won")
    posted = shop.settle()
    assert posted == shop.settle()
    assert one(oltp, "select count(*), sum(amount_minor) from core.balance_transactions") == (4, 600)
    shop = shop.later(days=3)
    shop.authorize(70, intent_id="pi_b")
    for _ in range(2):
        assert shop.top_up(9_000, topup_id="tu_a") == "tu_a"
        assert shop.payout(100, payout_id="po_a") == "po_a"
        assert shop.advance_payout("po_a", "paid") == "po_a"
        assert shop.transfer(other.merchant_id, 100, transfer_id="tr_a") == "tr_a"
        assert shop.reverse_transfer("tr_a") == "tr_a"
        assert shop.reverse_top_up(shop.top_up(50, topup_id="tu_b")) == "tu_b"
        assert shop.convert(100, "EUR/USD", "1.1", 0, "fx_a") == "fx_a"
        assert shop.pay_invoice(shop.invoice(500, 250, invoice_id="in_a"))
        assert shop.invoice(80, invoice_id="in_b") == "in_b"
        assert shop.credit("in_b", 30, "cn_a") == "cn_a"
        assert shop.end_invoice("in_b") == "in_b"
        assert shop.capture("pi_b", 60)
    assert one(oltp, "select count(*) from ledger.transactions") == (23,)
    assert broken() == []


def test_an_id_with_other_terms_is_refused(oltp: psycopg.Connection) -> None:
    shop, other = Shop(oltp).open(), Shop(oltp, "acct_other").open()
    shop.intend(1_000, intent_id="pi_a")
    with pytest.raises(errors.UniqueViolation, match="other terms"):
        shop.intend(1_001, intent_id="pi_a")
    shop.confirm("pi_a", "ch_a")
    with pytest.raises(errors.UniqueViolation, match="other terms"):
        shop.confirm("pi_a", "ch_a", failure_code="card_declined")
    shop.refund("ch_a", 400, "re_a")
    with pytest.raises(errors.UniqueViolation, match="other terms"):
        shop.refund("ch_a", 401, "re_a")
    shop.top_up(1_000, topup_id="tu_a")
    with pytest.raises(errors.UniqueViolation, match="other terms"):
        shop.top_up(1_001, topup_id="tu_a")
    shop.payout(100, payout_id="po_a")
    with pytest.raises(errors.UniqueViolation, match="other terms"):
        shop.payout(101, payout_id="po_a")
    shop.transfer(other.merchant_id, 100, transfer_id="tr_a")
    with pytest.raises(errors.UniqueViolation, match="other terms"):
        shop.transfer(other.merchant_id, 101, transfer_id="tr_a")
    shop.convert(100, "EUR/USD", "1.1", conversion_id="fx_a")
    with pytest.raises(errors.UniqueViolation, match="other terms"):
        shop.convert(100, "EUR/USD", "1.2", conversion_id="fx_a")
    shop.credit(shop.invoice(1_000, invoice_id="in_a"), 100, "cn_a")
    with pytest.raises(errors.UniqueViolation, match="other terms"):
        shop.credit("in_a", 101, "cn_a")
    with pytest.raises(errors.UniqueViolation, match="other terms"):
        shop.invoice(1_001, invoice_id="in_a")
    shop.authorize(500, intent_id="pi_b")
    shop.capture("pi_b", 400)
    with pytest.raises(errors.UniqueViolation, match="another amount"):
        shop.capture("pi_b", 401)


def test_what_cannot_be_paid_is_refused(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    intent = shop.intend(1_000)
    with pytest.raises(errors.NoDataFound):
        shop.confirm("pi_unknown")
    with pytest.raises(errors.NoDataFound):
        shop.refund("ch_unknown")
    with pytest.raises(errors.CheckViolation, match="left to refund"):
        shop.refund(shop.confirm(intent, failure_code="card_declined"))
    with pytest.raises(errors.CheckViolation, match="of its customer"):
        oltp.execute("select core.confirm_payment_intent('acct_shop', %s, 'pm_unknown')", (intent,))
    with pytest.raises(errors.CheckViolation):
        shop.intend(0)
    with pytest.raises(errors.ForeignKeyViolation):
        shop.intend(5, "XXQ")
    shop.confirm(intent)
    with pytest.raises(errors.CheckViolation, match="cannot be confirmed"):
        shop.confirm(intent)
    oltp.execute("update core.merchants set status = 'closed'")
    with pytest.raises(errors.CheckViolation, match="is closed"):
        shop.intend(1_000)
    assert broken() == []


def test_a_day_is_not_settled_before_its_time(oltp: psycopg.Connection) -> None:
    Shop(oltp).open()
    with pytest.raises(errors.CheckViolation, match="settle at"):
        oltp.execute("select core.settle_day('acct_shop', 'EUR', %s)", (datetime.now(UTC).date() - timedelta(days=1),))
    assert one(oltp, "select core.settle_day('acct_shop', 'EUR', '2026-03-10')") == (None,)


def test_a_charge_does_not_come_into_a_day_that_is_settled(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open(buckets=3)
    for amount in (1_000, 2_000, 3_000, 4_000):
        shop.pay(amount)
    shop.settle()
    with pytest.raises(errors.CheckViolation, match="comes too late"):
        shop.pay(5_000)
    shop.pay(5_000, "USD")
    shop.later(hours=12).pay(5_000)
    assert shop.balances()["card_receivable:EUR"] == 5_000
    assert broken() == []


def test_refunds_and_disputes_stay_within_what_was_captured(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    charge = shop.pay(1_000)
    shop.refund(charge, 600)
    with pytest.raises(errors.CheckViolation, match="has 400 left to refund"):
        shop.refund(charge, 500)
    dispute = shop.dispute(charge, 400)
    with pytest.raises(errors.CheckViolation, match="has 0 left to refund"):
        shop.refund(charge, 1)
    with pytest.raises(errors.CheckViolation, match="has 0 left to dispute"):
        shop.dispute(charge, 1)
    shop.close(dispute, "won")
    shop.refund(charge)
    assert one(oltp, "select amount_refunded_minor from core.charges") == (1_000,)
    with pytest.raises(errors.CheckViolation, match="from won to lost is illegal"):
        shop.close(dispute, "lost")
    assert broken() == []


def test_tables_themselves_refuse_an_excess_refund(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    charge = shop.pay(1_000)
    insert = """
        insert into core.refunds (
            merchant_id, refund_id, charge_id, amount_minor, currency, status, reason, created_at, updated_at
        )
        values ('acct_shop', %s, %s, %s, %s, 'pending', 'duplicate', now(), now())
    """
    with pytest.raises(errors.CheckViolation, match="refunded_within_captured"):
        oltp.execute(insert, ("re_1", charge, 1_001, "EUR"))
    with pytest.raises(errors.CheckViolation, match="needs a succeeded charge in USD"):
        oltp.execute(insert, ("re_1", charge, 1, "USD"))
    oltp.execute(insert, ("re_1", charge, 1_000, "EUR"))
    oltp.execute("update core.refunds set status = 'failed'")
    assert one(oltp, "select amount_refunded_minor from core.charges") == (0,)
    oltp.execute(insert, ("re_2", charge, 1_000, "EUR"))
    with pytest.raises(errors.CheckViolation, match="stays with its charge"):
        oltp.execute("update core.refunds set currency = 'USD' where refund_id = 're_2'")


def test_a_captured_part_releases_the_rest(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    intent = shop.authorize(1_000)
    held = "select debits_pending_minor, debits_posted_minor from ledger.accounts where code = 'card_receivable'"
    assert one(oltp, held) == (1_000, 0)
    assert one(oltp, "select status, amount_capturable_minor from core.payment_intents") == ("requires_capture", 1_000)
    assert one(oltp, "select count(*) from core.balance_transactions") == (0,)
    assert broken() == []
    with pytest.raises(errors.CheckViolation, match="has 1000 to capture, not 1001"):
        shop.capture(intent, 1_001)
    charge = shop.capture(intent, 600)
    assert shop.capture(intent, 600) == shop.capture(intent) == charge
    assert one(oltp, held) == (0, 600)
    assert one(oltp, "select status, posted_minor from ledger.holds") == ("posted", 600)
    assert one(oltp, "select amount_received_minor, amount_capturable_minor from core.payment_intents") == (600, 0)
    assert one(oltp, "select amount_minor, fee_minor from core.balance_transactions") == (600, 45)
    with pytest.raises(errors.CheckViolation, match="has 600 left to refund"):
        shop.refund(charge, 601)
    with pytest.raises(errors.CheckViolation, match="from succeeded to canceled is illegal"):
        shop.cancel(intent)
    assert broken() == []


def test_a_void_releases_the_whole(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    intent = shop.intend(1_000, capture_method="manual")
    charge = shop.confirm(intent, "ch_a")
    assert shop.cancel(intent) == shop.cancel(intent) == intent
    assert one(oltp, "select status, failure_code from core.charges") == ("failed", "authorization_voided")
    assert one(oltp, "select status, posted_minor from ledger.holds") == ("voided", 0)
    assert set(shop.balances().values()) == {0}
    with pytest.raises(errors.CheckViolation, match="cannot be captured"):
        shop.capture(intent)
    # The authorization asked for again is the one that was voided.
    assert shop.confirm(intent, "ch_a") == charge
    assert broken() == []


def test_an_authorization_expires_after_a_week(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open(buckets=3)
    for _ in range(4):
        shop.authorize(1_000)
    late = shop.later(days=1)
    late.authorize(500, intent_id="pi_late")
    assert shop.later(days=6).expire() == 0
    assert shop.later(days=7).expire() == 4
    assert shop.later(days=7).expire() == 0
    assert oltp.execute("select status, count(*) from ledger.holds group by status order by status").fetchall() == [
        ("expired", 4),
        ("pending", 1),
    ]
    late.capture("pi_late")
    assert broken() == []


def test_a_refund_is_under_way_then_succeeds_then_fails_after_all(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    charge = shop.pay(1_000)
    refund = shop.refund(charge, 700, is_settled=False)

    def amounts() -> tuple[int, ...]:
        balances = shop.balances()
        return tuple(balances.get(f"{code}:EUR", 0) for code in ("merchant_available", "refund_clearing", "bank"))

    assert amounts() == (-700, 700, 0)
    with pytest.raises(errors.CheckViolation, match="has 300 left"):
        shop.refund(charge, 301)
    assert shop.close_refund(refund, "succeeded") == shop.close_refund(refund, "succeeded") == refund
    assert amounts() == (-700, 0, -700)
    assert shop.close_refund(refund, "failed") == shop.close_refund(refund, "failed") == refund
    assert amounts() == (0, 0, 0)
    with pytest.raises(errors.CheckViolation, match="from failed to succeeded is illegal"):
        shop.close_refund(refund, "succeeded")
    shop.close_refund(shop.refund(charge, is_settled=False), "failed")
    assert amounts() == (0, 0, 0)
    assert one(oltp, "select amount_refunded_minor from core.charges") == (0,)
    shop.refund(charge)
    assert broken() == []


def test_an_inquiry_moves_no_money_until_it_becomes_a_dispute(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    charge = shop.pay(1_000)
    inquiry = shop.dispute(charge, is_inquiry=True)
    closed = shop.dispute(charge, 10, is_inquiry=True)
    assert "dispute_clearing:EUR" not in shop.balances()
    shop.advance(closed, "warning_closed")
    shop.advance(inquiry, "warning_under_review")
    with pytest.raises(errors.CheckViolation, match="is illegal"):
        shop.close(inquiry, "lost")
    refund = shop.refund(charge, 1, is_settled=False)
    with pytest.raises(errors.CheckViolation, match="has less left than dispute"):
        shop.advance(inquiry, "needs_response")
    shop.close_refund(refund, "failed")
    shop.advance(inquiry, "needs_response")
    assert shop.balances()["dispute_clearing:EUR"] == 1_000
    assert shop.balances()["merchant_available:EUR"] == -2_500
    shop.close(inquiry, "lost")
    assert shop.balances()["bank:EUR"] == -1_000
    assert broken() == []


def test_a_payout_is_paid_then_comes_back_and_is_paid_again(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    shop.pay(10_000)
    net = 10_000 - 250 - 30
    assert shop.later(days=1).payout() is None
    shop = shop.later(days=3)
    with pytest.raises(errors.CheckViolation, match=f"has {net} available in EUR, not {net + 1}"):
        shop.payout(net + 1)
    payout = shop.payout()
    assert payout is not None
    assert shop.payout() is None
    assert shop.balances()["payout_in_transit:EUR"] == net
    assert broken() == []
    shop.advance_payout(payout, "in_transit")
    shop.advance_payout(payout, "paid")
    assert shop.balances()["bank:EUR"] == 10_000 - net
    shop.advance_payout(payout, "failed")
    assert shop.balances()["merchant_available:EUR"] == net
    with pytest.raises(errors.CheckViolation, match="from failed to paid is illegal"):
        shop.advance_payout(payout, "paid")
    assert shop.payout(100) is not None
    again = shop.payout()
    assert one(oltp, "select amount_minor from core.payouts where payout_id = %s", again) == (net - 100,)
    assert broken() == []


def test_a_transfer_moves_what_is_available_and_is_reversed_exactly_once(oltp: psycopg.Connection) -> None:
    shop, other = Shop(oltp).open(), Shop(oltp, "acct_other").open()
    shop.top_up(1_000)
    with pytest.raises(errors.CheckViolation, match="has 1000 available in EUR, not 1001"):
        shop.transfer("acct_other", 1_001)
    transfer = shop.transfer("acct_other", 700)
    assert shop.balances()["merchant_available:EUR"] == 300
    assert other.balances() == {"merchant_available:EUR": 700, "transfer_clearing:EUR": -700}
    spent = other.transfer("acct_shop", 1)
    with pytest.raises(errors.CheckViolation, match="too little available"):
        shop.reverse_transfer(transfer)
    other.reverse_transfer(spent)
    assert shop.reverse_transfer(transfer) == shop.reverse_transfer(transfer) == transfer
    assert shop.balances()["merchant_available:EUR"] == 1_000
    assert other.balances() == {"merchant_available:EUR": 0, "transfer_clearing:EUR": 0}
    assert one(oltp, "select count(*) from ledger.transactions where kind = 'reversal'") == (4,)
    with pytest.raises(errors.CheckViolation, match="transfer_goes_elsewhere"):
        shop.transfer("acct_shop", 1)
    with pytest.raises(errors.NoDataFound, match="can be reversed"):
        oltp.execute(
            "select ledger.reverse('acct_shop', ledger_transaction_id, now()) "
            "from ledger.transactions where merchant_id = 'acct_shop' and kind = 'reversal'"
        )
    assert broken() == []


def test_an_application_fee_goes_through_two_books(oltp: psycopg.Connection) -> None:
    shop, platform = Shop(oltp).open(), Shop(oltp, "acct_platform").open()
    charge = shop.pay(1_000, application=("acct_platform", 100))
    assert shop.balances() == {
        "card_receivable:EUR": 1_000,
        "fee_revenue:EUR": 55,
        "merchant_pending:EUR": 845,
        "transfer_clearing:EUR": 100,
    }
    assert platform.balances() == {"merchant_available:EUR": 100, "transfer_clearing:EUR": -100}
    assert oltp.execute("select type, amount_minor from core.balance_transaction_fees order by type").fetchall() == [
        ("application_fee", 100),
        ("processing_fee", 55),
    ]
    with pytest.raises(errors.CheckViolation, match="more than its amount"):
        shop.pay(1_000, application=("acct_platform", 946))
    with pytest.raises(errors.CheckViolation, match="application_fee_has_owner"):
        shop.pay(1_000, application=(None, 1))
    shop.settle()
    shop.refund(charge)
    assert shop.balances()["bank:EUR"] == 0
    assert shop.balances()["merchant_available:EUR"] == -155
    assert broken() == []


def test_a_top_up_is_taken_back_exactly_once(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    topup = shop.top_up(500)
    shop.payout(200)
    assert shop.reverse_top_up(topup) == shop.reverse_top_up(topup) == topup
    assert shop.balances()["merchant_available:EUR"] == -200
    assert broken() == []


@pytest.mark.parametrize(
    ("amount", "pair", "terms", "gives"),
    [
        (1_234, "EUR/JPY", ("163.4567", 0), (2_017, 0)),  # 12.34 are 2017.05...
        (1_000, "EUR/KWD", ("0.3345", 0), (3_345, 0)),
        (1_000, "JPY/KWD", ("0.0020456789", 50), (2_045, 11)),  # 2.0456789, and a fee of 10.225 goes up to 11
        (999, "KWD/USD", ("3.2567", 0), (325, 0)),  # 0.999 are 3.2534433
        (101, "USD/EUR", ("0.91999", 100), (92, 1)),
        (9_007_199_254_740_993, "JPY/USD", ("0.0066666667", 0), (6_004_799_533_184_659, 0)),
    ],
)
def test_a_conversion_is_rounded_in_favour_of_liquidity(
    oltp: psycopg.Connection, amount: int, pair: str, terms: tuple[str, int], gives: tuple[int, int]
) -> None:
    shop = Shop(oltp).open()
    source, target = pair.split("/")
    shop.top_up(amount, source)
    shop.convert(amount, pair, *terms)
    gross, fee = gives
    balances = shop.balances()
    assert balances[f"merchant_available:{source}"] == 0
    assert balances[f"fx_liquidity:{source}"] == amount
    assert balances[f"fx_liquidity:{target}"] == -gross
    assert balances[f"merchant_available:{target}"] == gross - fee
    assert balances.get(f"fee_revenue:{target}", 0) == fee
    with pytest.raises(errors.CheckViolation, match="has less than 1 available"):
        shop.convert(1, pair, terms[0])
    shop.top_up(1, "JPY")
    with pytest.raises(errors.CheckViolation, match="to_amount_minor"):
        shop.convert(1, "JPY/EUR", "0.0061")
    assert broken() == []


def test_an_invoice_is_owed_until_it_is_paid_credited_or_void(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    invoice = shop.invoice(600, 400, discount=100)

    def owed() -> int:
        balances = shop.balances()
        assert balances["invoice_receivable:EUR"] == balances["invoice_clearing:EUR"]
        return balances["invoice_receivable:EUR"]

    assert owed() == 900
    shop.pay_invoice(invoice, "card_declined")
    assert one(oltp, "select status, amount_paid_minor from core.invoices") == ("open", 0)
    shop.credit(invoice, 200)
    assert owed() == 700
    with pytest.raises(errors.CheckViolation, match="with 700 left to credit"):
        shop.credit(invoice, 701)
    charge = shop.pay_invoice(invoice)
    assert shop.pay_invoice(invoice) == charge
    # The intent over the amount before the credit note can no longer be paid.
    assert oltp.execute("select amount_minor, status from core.payment_intents order by amount_minor").fetchall() == [
        (700, "succeeded"),
        (900, "canceled"),
    ]
    assert owed() == 0
    assert one(oltp, "select status, amount_paid_minor, amount_credited_minor from core.invoices") == ("paid", 700, 200)
    shop.credit(invoice, 50)  # of what was paid: a refund
    assert one(oltp, "select charge_id, amount_minor from core.refunds") == (charge, 50)
    with pytest.raises(errors.CheckViolation, match="left to refund"):
        shop.credit(invoice, 651)
    void = shop.invoice(300)
    shop.end_invoice(void)
    with pytest.raises(errors.CheckViolation, match="cannot be paid"):
        shop.pay_invoice(void)
    doubtful = shop.invoice(500)
    shop.end_invoice(doubtful, "uncollectible")
    assert owed() == 500
    shop.pay_invoice(doubtful)
    assert owed() == 0
    shop.invoice(70, discount=70, invoice_id="in_free")
    assert one(oltp, "select status from core.invoices where invoice_id = 'in_free'") == ("paid",)
    assert broken() == []


def test_an_invoice_that_its_lines_do_not_add_up_to_is_refused(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    shop.invoice(300)
    with pytest.raises(errors.CheckViolation, match="do not add up"):
        oltp.execute("update core.invoices set subtotal_minor = 301, total_minor = 301")


def test_a_subscription_bills_each_period_once(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    subscription = shop.subscribe(shop.monthly_price(2_500), 2, shop.coupon(2_000))
    totals = "select subtotal_minor, discount_minor, status from core.invoices order by created_at desc limit 1"
    state = "select status from core.subscriptions"
    assert one(oltp, state) == ("incomplete",)
    first = shop.bill(subscription)
    assert shop.bill(subscription) is None
    assert one(oltp, totals) == (5_000, 1_000, "paid")
    assert one(oltp, state) == ("active",)
    assert one(oltp, "select current_period_start_at, current_period_end_at from core.subscription_items") == (
        NOON,
        datetime(2026, 4, 10, 12, tzinfo=UTC),
    )
    assert shop.later(days=30).bill(subscription) is None
    failed = shop.later(days=31).bill(subscription, "insufficient_funds")
    assert failed is not None
    assert one(oltp, totals) == (5_000, 0, "open")
    assert one(oltp, state) == ("past_due",)
    shop.later(days=32).pay_invoice(failed)
    assert one(oltp, state) == ("active",)
    shop.later(days=62).bill(subscription)
    assert one(oltp, state) == ("active",)
    assert one(oltp, "select count(*), count(distinct payment_intent_id) from core.invoices") == (3, 3)
    oltp.execute("select core.cancel_subscription('acct_shop', %s)", (subscription,))
    with pytest.raises(errors.CheckViolation, match="is not billed"):
        shop.later(days=93).bill(subscription)
    assert first != failed
    assert broken() == []


def test_a_closed_month_takes_no_posting(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    shop.pay(1_000)
    oltp.execute("call ledger.close_period('2026-03-01')")
    with pytest.raises(errors.CheckViolation, match="the accounting period 2026-03 is closed"):
        shop.pay(1_000)
    with pytest.raises(errors.CheckViolation, match="2026-03 is closed"):
        shop.top_up(1_000)
    shop.later(days=25).pay(1_000)
    with pytest.raises(errors.InsufficientPrivilege, match="append-only"):
        oltp.execute("delete from ledger.closed_periods")
    for month in (datetime.now(UTC).date().replace(day=1), datetime(2026, 2, 2, tzinfo=UTC).date()):
        with pytest.raises(errors.CheckViolation, match="cannot be"):
            oltp.execute("call ledger.close_period(%s)", (month,))
    assert broken() == []


@pytest.fixture
def operators(oltp: psycopg.Connection) -> Iterator[tuple[str, str]]:
    """Two logins that may propose and decide adjustments."""
    names = ("test_maker", "test_checker")
    for name in names:
        oltp.execute(f"create role {name} login in role payments_operator".encode())
    yield names
    oltp.execute("reset session authorization")
    for name in names:
        oltp.execute(f"drop role {name}".encode())


def test_an_adjustment_needs_two_operators(oltp: psycopg.Connection, operators: tuple[str, str]) -> None:
    shop = Shop(oltp).open()
    maker, checker = operators

    def act(operator: str, query: str) -> None:
        oltp.execute(f"set session authorization {operator}".encode())
        try:
            oltp.execute(query.encode())
        finally:
            oltp.execute("reset session authorization")

    act(maker, "select core.propose_adjustment('acct_shop', -70, 'EUR', 'charged the fee twice', 'adj_1')")
    act(maker, "select core.propose_adjustment('acct_shop', 30, 'EUR', 'a gift to a friend', 'adj_2')")
    assert shop.balances() == {}
    with pytest.raises(errors.CheckViolation, match="maker_is_not_checker"):
        act(maker, "select core.decide_adjustment('acct_shop', 'adj_1', 'approved')")
    oltp.execute("set app.actor = 'somebody_else'")
    with pytest.raises(errors.CheckViolation, match="maker_is_not_checker"):
        act(maker, "select core.decide_adjustment('acct_shop', 'adj_1', 'approved')")
    with pytest.raises(errors.InsufficientPrivilege):
        act(maker, "update core.adjustments set status = 'approved', decided_by = 'x', decided_at = now()")
    act(checker, "select core.decide_adjustment('acct_shop', 'adj_1', 'approved')")
    act(checker, "select core.decide_adjustment('acct_shop', 'adj_1', 'approved')")
    act(checker, "select core.decide_adjustment('acct_shop', 'adj_2', 'rejected')")
    assert shop.balances() == {"merchant_available:EUR": -70, "suspense:EUR": 70}
    # Repeated by somebody else, a decision stays with who took it.
    act(maker, "select core.decide_adjustment('acct_shop', 'adj_2', 'rejected')")
    assert oltp.execute("select distinct decided_by from core.adjustments").fetchall() == [(checker,)]
    with pytest.raises(errors.CheckViolation, match="from approved to rejected is illegal"):
        act(checker, "select core.decide_adjustment('acct_shop', 'adj_1', 'rejected')")
    assert broken() == []


def test_a_seal_notices_what_is_changed_behind_it(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    shop.pay(1_000)
    shop.pay(2_000)
    assert seal(oltp) == 2
    assert seal(oltp) == 0
    shop.pay(3_000)
    assert seal(oltp) == 1
    broken_seals = "select array(select seal_no from ledger.broken_seals() order by seal_no)"
    assert one(oltp, broken_seals) == ([],)
    # Amounts of one posting, changed so that everything still balances.
    tampered = "update ledger.entries set {} where ledger_transaction_id = (%s)"
    (first,) = one(oltp, "select ledger_transaction_id from ledger.transactions order by recorded_xid limit 1")
    for change in ("amount_minor = amount_minor * 2", "balance_after_minor = 0", "side = 'D'"):
        with oltp.transaction(force_rollback=True):
            oltp.execute("set local session_replication_role = replica")
            oltp.execute(tampered.format(change).encode(), (first,))
            assert one(oltp, broken_seals) == ([1],)
    with oltp.transaction(force_rollback=True):
        oltp.execute("set local session_replication_role = replica")
        oltp.execute("delete from ledger.seals where seal_no = 1")
        assert one(oltp, broken_seals) == ([2],)
    with pytest.raises(errors.InsufficientPrivilege, match="append-only"):
        oltp.execute("delete from ledger.seals")
    assert broken() == []


def test_versions_only_grow_and_rows_stay_with_their_merchant(oltp: psycopg.Connection) -> None:
    busy_market(oltp)
    with_rows = 0
    for table in [*VERSIONED, "ledger.holds"]:
        if one(oltp, f"select count(*) from {table}")[0] == 0:
            continue
        with_rows += 1
        before = one(oltp, f"select min(version), max(version), count(*) from {table}")
        oltp.execute(f"update {table} set version = 1, updated_at = updated_at".encode())
        assert one(oltp, f"select min(version), max(version), count(*) from {table}") == (
            *(before[0] + 1, before[1] + 1, before[2]),
        )
        with pytest.raises(errors.CheckViolation, match="stays with its merchant"):
            oltp.execute(f"update {table} set merchant_id = 'acct_elsewhere'".encode())
    assert with_rows == len(VERSIONED) + 1 - 3, "all but set-up intents, reviews and checkout sessions"
    assert broken() == []


@pytest.mark.parametrize(
    "change",
    [
        "update core.charges set status = 'failed', failure_code = 'x', amount_captured_minor = 0 "
        "where charge_id = 'ch_8'",
        "update core.payment_intents set status = 'processing' where status = 'succeeded'",
        "update core.refunds set status = 'pending'",
        "update core.disputes set status = 'needs_response', closed_at = null where status = 'won'",
    ],
)
def test_an_illegal_change_of_status_is_refused(oltp: psycopg.Connection, change: str) -> None:
    busy_day(oltp)
    with pytest.raises(errors.CheckViolation, match="is illegal"):
        oltp.execute(change.encode())


def test_history_is_append_only(oltp: psycopg.Connection) -> None:
    busy_market(oltp)
    oltp.execute("select ops.ensure_months('2026-03-01', '2026-03-31')")
    for change in (
        "update ledger.entries set amount_minor = 1",
        "delete from ledger.entries",
        "truncate ledger.entries",
        "truncate ledger.entries_default",
        "truncate ledger.entries_2026_03",
        "update ledger.transactions set posted_at = now()",
        "delete from ledger.transactions",
        "truncate ledger.transactions cascade",
        "truncate ledger.transactions_p0 cascade",
        "delete from ledger.accounts",
        "delete from ledger.holds",
        "delete from ledger.seals",
        "update core.balance_transactions set fee_minor = 0, net_minor = amount_minor",
        "delete from core.balance_transactions",
        "truncate core.balance_transactions cascade",
        "update core.balance_transaction_fees set amount_minor = 1",
        "delete from core.payout_balance_transactions",
        "update core.application_fees set amount_minor = 1",
        "update core.currency_conversions set fee_minor = 0",
        "delete from core.credit_notes",
        "update core.settlements set amount_minor = 1",
        "update ops.outbox set payload = '{}'",
        "delete from ops.audit_log",
        "truncate ops.audit_log_default",
        *(f"delete from {table}" for table in VERSIONED if one(oltp, f"select count(*) from {table}")[0] > 0),
    ):
        with pytest.raises(errors.InsufficientPrivilege, match="append-only"):
            oltp.execute(change.encode())


@pytest.mark.parametrize("table", ["charges", "disputes", "payouts", "transfers"])
def test_terms_are_fixed(oltp: psycopg.Connection, table: str) -> None:
    busy_market(oltp)
    with pytest.raises(errors.CheckViolation, match=f"{table} keeps what it is about"):
        oltp.execute(f"update core.{table} set amount_minor = amount_minor + 1".encode())


def test_an_unbalanced_or_empty_transaction_is_refused(oltp: psycopg.Connection) -> None:
    Shop(oltp).open()
    legs = "array[('bank', 'EUR', 'D', 5, null), ('merchant_available', 'EUR', 'C', {}, null)]::ledger.leg[]"
    post = "select ledger.post('acct_shop', 'topup', 'tu_x', now(), {})"
    with pytest.raises(errors.CheckViolation, match="does not balance"):
        oltp.execute(post.format(legs.format(4)).encode())
    with pytest.raises(errors.CheckViolation, match="has no entries"):
        oltp.execute(post.format("array[]::ledger.leg[]").encode())
    oltp.execute(post.format(legs.format(5)).encode())
    with pytest.raises(errors.UniqueViolation, match="other legs"):
        oltp.execute(post.format(legs.format(4)).encode())
    assert one(oltp, "select count(*) from ledger.entries") == (2,)


def test_a_protected_account_does_not_go_below_zero(oltp: psycopg.Connection) -> None:
    Shop(oltp).open().authorize(100)
    legs = "('merchant_pending', 'EUR', 'D', 5, 0), ('merchant_available', 'EUR', 'C', 5, 0)"
    with pytest.raises(errors.CheckViolation, match="never_below_zero"):
        oltp.execute(f"select ledger.post('acct_shop', 'settlement', 'x', now(), array[{legs}]::ledger.leg[])".encode())


def test_a_posting_that_names_an_account_twice_keeps_running_balances(oltp: psycopg.Connection) -> None:
    Shop(oltp).open()
    oltp.execute(
        """
        select ledger.post('acct_shop', 'charge', 'ch_x', now(), array[
            ('bank', 'EUR', 'D', 5, null),
            ('bank', 'EUR', 'D', 7, null),
            ('bank', 'EUR', 'C', 2, null),
            ('fee_revenue', 'EUR', 'C', 10, null)
        ]::ledger.leg[])
        """
    )
    rows = oltp.execute(
        "select account_entry_no, balance_after_minor from ledger.entries where ledger_account_id like '%bank%' "
        "order by entry_no"
    ).fetchall()
    assert rows == [(1, 5), (2, 12), (3, 10)]


def test_the_same_key_gets_the_same_answer_also_of_a_decline(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    terms = {"customer_id": "cus_ada", "amount_minor": 900, "currency": "EUR", "payment_method_id": "pm_ada"}
    intent = shop.call("k1", "payment_intents.create", **terms)
    assert (intent["status"], intent["is_replayed"]) == (200, False)
    # Other spelling, same request: the order of the parameters says nothing.
    again = shop.call("k1", "payment_intents.create", **dict(reversed(terms.items())))
    assert again == {**intent, "is_replayed": True}
    declined = shop.call("k2", "payment_intents.confirm", payment_intent_id=intent["id"], failure_code="card_declined")
    assert (declined["status"], declined["failure_code"]) == (402, "card_declined")
    for _ in range(3):
        repeated = shop.call(
            "k2", "payment_intents.confirm", payment_intent_id=intent["id"], failure_code="card_declined"
        )
        assert repeated == {**declined, "is_replayed": True}
    assert one(oltp, "select count(*) from core.charges") == (1,)
    paid = shop.call("k3", "payment_intents.confirm", payment_intent_id=intent["id"])
    assert paid["status"] == 200
    # Without a key every call is a new one.
    refunds = {shop.call(None, "refunds.create", charge_id=paid["id"], amount_minor=1)["id"] for _ in range(2)}
    assert len(refunds) == 2
    assert one(oltp, "select count(*) from ops.audit_log where request_id = 'k3' and operation = 'insert'")[0] >= 1
    assert broken() == []


def test_a_key_belongs_to_one_request_of_one_merchant(oltp: psycopg.Connection) -> None:
    shop, other = Shop(oltp).open(), Shop(oltp, "acct_other").open()
    first = shop.call("k1", "topups.create", amount_minor=500, currency="EUR")
    with pytest.raises(errors.InvalidParameterValue, match="with other parameters"):
        shop.call("k1", "topups.create", amount_minor=501, currency="EUR")
    with pytest.raises(errors.InvalidParameterValue, match="with other parameters"):
        shop.call("k1", "payouts.create", amount_minor=500, currency="EUR")
    assert other.call("k1", "topups.create", amount_minor=500, currency="EUR")["id"] != first["id"]
    with pytest.raises(errors.InsufficientPrivilege, match="may not act for that merchant"):
        oltp.execute("select api.call('acct_shop', 'k2', 'topups.create', '{}')")
    with pytest.raises(errors.InvalidParameterValue, match="there is no operation"):
        shop.call("k3", "charges.delete")
    # An operation that raised saved nothing: its key is free.
    with pytest.raises(errors.CheckViolation):
        shop.call("k4", "payouts.create", amount_minor=501, currency="EUR")
    assert shop.call("k4", "payouts.create", amount_minor=499, currency="EUR")["is_replayed"] is False
    assert broken() == []


def test_a_key_in_use_is_a_conflict_until_its_transaction_ends(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    with connect() as connection:
        concurrent = Shop(connection)
        rolled_back = concurrent.call("k1", "topups.create", amount_minor=500, currency="EUR")
        with pytest.raises(errors.LockNotAvailable, match="under way"):
            shop.call("k1", "topups.create", amount_minor=500, currency="EUR")
        assert shop.call("k2", "topups.create", amount_minor=7, currency="USD")["status"] == 200
        connection.rollback()
        kept = shop.call("k1", "topups.create", amount_minor=500, currency="EUR")
        assert kept["is_replayed"] is False
        assert kept["id"] != rolled_back["id"]
        assert concurrent.call("k1", "topups.create", amount_minor=500, currency="EUR") == {
            **kept,
            "is_replayed": True,
        }
    assert shop.balances()["merchant_available:EUR"] == 500
    assert broken() == []
