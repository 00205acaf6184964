"""Payments through the SQL functions: all or nothing, never twice, never beyond what was captured, also when raced."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import errors

from payments.systems.oltp.check import check
from payments.systems.oltp.connection import connect
from tests.systems.shop import NOON, Shop, busy_day


def broken() -> list[str]:
    return [f"{result.name}: {result.detail}" for result in check() if not result.passed]


def in_parallel(action: Callable[[Shop, int], object], times: int) -> Counter[str]:
    """Run an action in concurrent connections and count its outcomes: ok, or the SQLSTATE."""

    def attempt(number: int) -> str:
        with connect(autocommit=True) as connection:
            try:
                action(Shop(connection), number)
            except psycopg.Error as error:
                return error.sqlstate or "?"
            return "ok"

    with ThreadPoolExecutor(10) as pool:
        return Counter(pool.map(attempt, range(times)))


def one(connection: psycopg.Connection, query: str) -> tuple[object, ...]:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return tuple(row)


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
    entries = oltp.execute(
        "select entry_no, ledger_account_id, side, amount_minor, account_entry_no, balance_after_minor, posted_at "
        "from ledger.entries order by entry_no"
    ).fetchall()
    assert entries == [
        (1, "acct_shop:card_receivable:EUR", "D", 10_010, 1, 10_010, NOON),
        (2, "acct_shop:merchant_pending:EUR", "C", 9_730, 1, 9_730, NOON),
        (3, "acct_shop:fee_revenue:EUR", "C", 280, 1, 280, NOON),
    ]
    assert broken() == []


def test_a_busy_day_ends_with_the_right_balances(oltp: psycopg.Connection) -> None:
    shop = busy_day(oltp)
    assert broken() == []
    charged, fees = 36_000, 36_000 // 40 + 8 * 30
    balances = shop.balances()
    assert balances["acct_shop:merchant_pending:EUR"] == 0
    assert balances["acct_shop:card_receivable:EUR"] == 0
    assert balances["acct_shop:fee_revenue:EUR"] == fees + 3 * 1_500
    assert balances["acct_shop:dispute_clearing:EUR"] == 2_000
    assert balances["acct_shop:bank:EUR"] == charged - 1_000 - 800 - 4_000
    assert balances["acct_shop:merchant_available:EUR"] == charged - fees - 1_800 - 4_000 - 2_000 - 3 * 1_500
    # 2.5 percent of 700 is 17.5, rounded to the even 18.
    assert balances["acct_shop:merchant_pending:JPY"] == 700 - 18 - 30


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
    shop = Shop(oltp).open()
    assert shop.intend(1_000, intent_id="pi_a") == shop.intend(1_000, intent_id="pi_a") == "pi_a"
    assert shop.confirm("pi_a", "ch_a") == shop.confirm("pi_a", "ch_a") == "ch_a"
    assert shop.refund("ch_a", 400, "re_a") == shop.refund("ch_a", 400, "re_a") == "re_a"
    dispute = shop.dispute("ch_a", 600)
    shop.close(dispute, "won")
    shop.close(dispute, "won")
    posted = shop.settle()
    assert posted == shop.settle()
    assert one(oltp, "select count(*), sum(amount_minor) from core.balance_transactions") == (4, 600)
    assert broken() == []


def test_an_id_with_other_terms_is_refused(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    shop.intend(1_000, intent_id="pi_a")
    with pytest.raises(errors.UniqueViolation, match="other terms"):
        shop.intend(1_001, intent_id="pi_a")
    shop.confirm("pi_a", "ch_a")
    with pytest.raises(errors.UniqueViolation, match="other terms"):
        shop.confirm("pi_a", "ch_a", failure_code="card_declined")
    shop.refund("ch_a", 400, "re_a")
    with pytest.raises(errors.UniqueViolation, match="other terms"):
        shop.refund("ch_a", 401, "re_a")


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


@pytest.mark.parametrize(
    "change",
    [
        "update ledger.entries set amount_minor = 1",
        "delete from ledger.entries",
        "truncate ledger.entries",
        "update ledger.transactions set posted_at = now()",
        "delete from ledger.transactions",
        "truncate ledger.transactions cascade",
        "delete from ledger.accounts",
        "update core.balance_transactions set fee_minor = 0, net_minor = amount_minor",
        "delete from core.balance_transactions",
        "truncate core.balance_transactions",
        "delete from core.refunds",
        "delete from core.disputes",
    ],
)
def test_history_is_append_only(oltp: psycopg.Connection, change: str) -> None:
    busy_day(oltp)
    with pytest.raises(errors.InsufficientPrivilege, match="append-only"):
        oltp.execute(change.encode())


def test_terms_of_a_dispute_are_fixed(oltp: psycopg.Connection) -> None:
    busy_day(oltp)
    with pytest.raises(errors.CheckViolation, match="stays with its charge"):
        oltp.execute("update core.disputes set amount_minor = 1")


def test_an_unbalanced_or_empty_transaction_is_refused_at_commit(oltp: psycopg.Connection) -> None:
    Shop(oltp).open()
    legs = "array[(null, 'bank', 'EUR', 'D', 5), ('acct_shop', 'merchant_available', 'EUR', 'C', {})]::ledger.leg[]"
    with pytest.raises(errors.CheckViolation, match="does not balance"):
        oltp.execute(f"select ledger.post('charge', 'ch_x', now(), {legs.format(4)})".encode())
    with pytest.raises(errors.CheckViolation, match="has no entries"):
        oltp.execute("select ledger.post('charge', 'ch_x', now(), array[]::ledger.leg[])")
    oltp.execute(f"select ledger.post('charge', 'ch_x', now(), {legs.format(5)})".encode())
    with pytest.raises(errors.UniqueViolation, match="other legs"):
        oltp.execute(f"select ledger.post('charge', 'ch_x', now(), {legs.format(4)})".encode())
    assert one(oltp, "select count(*) from ledger.entries") == (2,)


def test_a_posting_that_names_an_account_twice_keeps_running_balances(oltp: psycopg.Connection) -> None:
    oltp.execute(
        """
        select ledger.post('charge', 'ch_x', now(), array[
            (null, 'bank', 'EUR', 'D', 5),
            (null, 'bank', 'EUR', 'D', 7),
            (null, 'bank', 'EUR', 'C', 2),
            (null, 'fee_revenue', 'EUR', 'C', 10)
        ]::ledger.leg[])
        """
    )
    rows = oltp.execute(
        "select account_entry_no, balance_after_minor from ledger.entries where ledger_account_id like '%bank%' "
        "order by entry_no"
    ).fetchall()
    assert rows == [(1, 5), (2, 12), (3, 10)]


def test_of_parallel_refunds_exactly_those_that_fit_succeed(oltp: psycopg.Connection, full_size: bool) -> None:
    charge = Shop(oltp).open().pay(1_000)
    times = 200 if full_size else 30
    outcomes = in_parallel(lambda shop, _: shop.refund(charge, 100), times)
    assert outcomes == {"ok": 10, "23514": times - 10}
    assert one(oltp, "select amount_refunded_minor from core.charges") == (1_000,)
    assert broken() == []


def test_refunds_that_race_with_a_dispute_leave_no_excess(oltp: psycopg.Connection) -> None:
    charge = Shop(oltp).open().pay(1_000)
    outcomes = in_parallel(
        lambda shop, number: shop.dispute(charge, 300) if number % 3 == 0 else shop.refund(charge, 300), 18
    )
    assert outcomes == {"ok": 3, "23514": 15}
    assert broken() == []


def test_of_parallel_confirmations_one_succeeds(oltp: psycopg.Connection) -> None:
    intent = Shop(oltp).open().intend(1_000)
    assert in_parallel(lambda shop, _: shop.confirm(intent), 20) == {"ok": 1, "23514": 19}
    assert one(oltp, "select count(*) from core.charges") == (1,)
    assert broken() == []


def test_a_confirmation_repeated_in_parallel_happens_once(oltp: psycopg.Connection) -> None:
    intent = Shop(oltp).open().intend(1_000)
    assert in_parallel(lambda shop, _: shop.confirm(intent, "ch_one"), 20) == {"ok": 20}
    assert one(oltp, "select count(*) from ledger.transactions") == (1,)
    assert broken() == []


def test_one_posting_repeated_in_parallel_happens_once(oltp: psycopg.Connection) -> None:
    # Each round races anew on a posting and on accounts that do not exist yet.
    Shop(oltp).open()
    currencies = ["EUR", "USD", "GBP", "JPY", "KWD", "CHF", "SEK", "NOK", "DKK", "PLN"]
    post = """
        select ledger.post('charge', %s, now(), array[
            (null, 'bank', %s, 'D', 5), ('acct_shop', 'merchant_available', %s, 'C', 5)
        ]::ledger.leg[])
    """

    def again(shop: Shop, number: int) -> None:
        currency = currencies[number // 10]
        shop.connection.execute(post.encode(), (f"ch_{currency}", currency, currency))

    assert in_parallel(again, 100) == {"ok": 100}
    assert one(oltp, "select count(*) from ledger.transactions") == (10,)
    assert one(oltp, "select count(*) from ledger.entries") == (20,)


def test_payments_of_many_merchants_in_parallel_neither_deadlock_nor_lose_a_cent(oltp: psycopg.Connection) -> None:
    merchants = [f"acct_{number}" for number in range(4)]
    for merchant in merchants:
        Shop(oltp, merchant).open()

    def buy_and_return(shop: Shop, number: int) -> None:
        mine = Shop(shop.connection, merchants[number % len(merchants)])
        charge = mine.pay(1_000 + number)
        if number % 2:
            mine.refund(charge)

    assert in_parallel(buy_and_return, 60) == {"ok": 60}
    assert broken() == []
