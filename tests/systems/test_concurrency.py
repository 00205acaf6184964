"""Many clients at once on the real server: nothing lost, nothing twice, nobody below zero, no deadlock for a caller.

Everything is asked twice: at READ COMMITTED, where the locks of the functions decide, and at SERIALIZABLE, where a
caller repeats what ends in a serialization failure (40001), as documented.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from typing import Any

import psycopg
import pytest
from psycopg import errors
from psycopg.rows import TupleRow

from payments.systems.oltp.check import check
from payments.systems.oltp.connection import dsn
from tests.conftest import Servers
from tests.systems.shop import NOON, Shop, one, seal

CLIENTS = 64
OK, REFUSED, OTHER_TERMS = "ok", "23514", "23505"


class Client(psycopg.Connection[TupleRow]):
    """A connection that repeats a statement after a serialization failure, at SERIALIZABLE only."""

    level = "read committed"

    def execute(self, *arguments: Any, **options: Any) -> psycopg.Cursor[TupleRow]:
        for attempt in range(1_000):
            try:
                return super().execute(*arguments, **options)
            except errors.SerializationFailure:
                if self.level != "serializable":
                    raise
                time.sleep(random.uniform(0, 0.01 * min(attempt + 1, 20)))  # noqa: S311 (spreads the clients)
        raise AssertionError("a statement failed to serialize a thousand times")


@pytest.fixture(scope="module")
def connections(servers: Servers) -> Iterator[list[Client]]:
    """Connections of as many clients; one that waits for half a minute fails."""
    assert servers.home.exists()
    options = "-c timezone=UTC -c statement_timeout=30s"
    opened = [Client.connect(dsn(), autocommit=True, options=options) for _ in range(CLIENTS)]
    yield opened
    for connection in opened:
        connection.close()


@pytest.fixture(params=["read committed", "serializable"])
def clients(request: pytest.FixtureRequest, connections: list[Client], oltp: psycopg.Connection) -> list[Client]:
    """The clients, at each isolation level, of an empty store."""
    for client in connections:
        client.level = request.param
        client.execute(f"set session characteristics as transaction isolation level {request.param}")
    assert one(connections[0], "show transaction_isolation") == (request.param,)
    assert one(oltp, "select count(*) from core.merchants") == (0,)
    return connections


def race(clients: list[Client], action: Callable[[Shop, int], object], rounds: int = 1) -> Counter[str]:
    """Let all clients begin at one moment, each with its number, and count how it ended: ok, or the SQLSTATE."""
    barrier = Barrier(len(clients))

    def run(number: int) -> list[str]:
        shop = Shop(clients[number])
        barrier.wait()
        return [outcome(action, shop, number + at * len(clients)) for at in range(rounds)]

    with ThreadPoolExecutor(len(clients)) as pool:
        return Counter(ended for outcomes in pool.map(run, range(len(clients))) for ended in outcomes)


def outcome(action: Callable[[Shop, int], object], shop: Shop, number: int) -> str:
    try:
        action(shop, number)
    except psycopg.Error as error:
        return error.sqlstate or str(error)
    return OK


def broken() -> list[str]:
    return [f"{result.name}: {result.detail}" for result in check() if not result.passed]


def of(shop: Shop, merchant_id: str) -> Shop:
    return Shop(shop.connection, merchant_id)


def test_of_parallel_refunds_exactly_those_that_fit_succeed(oltp: psycopg.Connection, clients: list[Client]) -> None:
    charge = Shop(oltp).open().pay(1_000)
    assert race(clients, lambda shop, _: shop.refund(charge, 100)) == {OK: 10, REFUSED: CLIENTS - 10}
    assert one(oltp, "select amount_refunded_minor from core.charges") == (1_000,)
    assert broken() == []


def test_refunds_that_race_with_disputes_leave_no_excess(oltp: psycopg.Connection, clients: list[Client]) -> None:
    shop = Shop(oltp).open()
    charges = [shop.pay(1_000) for _ in range(8)]

    def take(shop: Shop, number: int) -> None:
        charge = charges[number % 8]
        if number // 8 % 3 == 0:
            shop.dispute(charge, 300)
        else:
            shop.refund(charge, 300, is_settled=number % 2 == 0)

    assert race(clients, take) == {OK: 3 * 8, REFUSED: CLIENTS - 3 * 8}
    assert broken() == []


def test_of_parallel_confirmations_one_succeeds(oltp: psycopg.Connection, clients: list[Client]) -> None:
    intent = Shop(oltp).open().intend(1_000)
    assert race(clients, lambda shop, _: shop.confirm(intent)) == {OK: 1, REFUSED: CLIENTS - 1}
    again = Shop(oltp).intend(1_000)
    assert race(clients, lambda shop, _: shop.confirm(again, "ch_one")) == {OK: CLIENTS}
    assert one(oltp, "select count(*) from core.charges") == (2,)
    assert one(oltp, "select count(*) from ledger.transactions") == (2,)
    assert broken() == []


def test_captures_and_voids_of_one_authorization_end_it_once(oltp: psycopg.Connection, clients: list[Client]) -> None:
    shop = Shop(oltp).open(buckets=4)
    intents = [shop.authorize(1_000, application=("acct_shop", 10)) for _ in range(16)]
    actions: list[Callable[[Shop, str], object]] = [
        lambda shop, intent: shop.capture(intent),
        lambda shop, intent: shop.cancel(intent),
        lambda shop, intent: shop.capture(intent, 600),
        lambda shop, _: shop.later(days=8).expire(),
    ]
    ended = race(clients, lambda shop, number: actions[number // 16](shop, intents[number % 16]))
    assert set(ended) <= {OK, REFUSED, OTHER_TERMS}
    assert one(oltp, "select count(*) from ledger.holds where status = 'pending'") == (0,)
    captured = one(oltp, "select count(*) from core.charges where status = 'succeeded'")
    assert one(oltp, "select count(*) from ledger.transactions where kind = 'charge'") == captured
    assert broken() == []


def test_transfers_in_a_ring_keep_the_total_at_every_read(
    oltp: psycopg.Connection, clients: list[Client], full_size: bool
) -> None:
    ring = [f"acct_{number}" for number in range(8)]
    for merchant in ring:
        Shop(oltp, merchant).open().top_up(1_000)
    *movers, first_reader, second_reader = clients
    done = Event()

    def move(shop: Shop, number: int) -> None:
        draw = random.Random(number)  # noqa: S311 (a seeded choice of amounts)
        source = number % 8
        transfer = of(shop, ring[source]).transfer(ring[(source + draw.choice([1, 7])) % 8], draw.randint(1, 900))
        if draw.random() < 0.3:
            of(shop, ring[source]).reverse_transfer(transfer)

    def read(client: Client) -> set[tuple[int, bool]]:
        seen = set()
        while not done.is_set():
            total, least = one(
                client,
                "select sum(credits_posted_minor - debits_posted_minor)::bigint, "
                "min(credits_posted_minor - debits_posted_minor) "
                "from ledger.accounts where code = 'merchant_available'",
            )
            seen.add((total, least >= 0))
        return seen

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read, client) for client in (first_reader, second_reader)]
        try:
            ended = race(movers, move, rounds=20 if full_size else 2)
        finally:
            done.set()
    assert set(ended) == {OK, REFUSED}
    assert ended[OK] > 30
    assert [reader.result() for reader in readers] == [{(8_000, True)}] * 2
    assert broken() == []


def test_every_reversal_is_exact_and_happens_once(oltp: psycopg.Connection, clients: list[Client]) -> None:
    shop, other = Shop(oltp).open(), Shop(oltp, "acct_other").open()
    kept = shop.top_up(1_000)
    topups = [shop.top_up(10 + number) for number in range(8)]
    transfers = [shop.transfer(other.merchant_id, 20 + number) for number in range(8)]

    def reverse(shop: Shop, number: int) -> None:
        if number % 2:
            shop.reverse_transfer(transfers[number // 2 % 8])
        else:
            shop.reverse_top_up(topups[number // 2 % 8])

    assert race(clients, reverse) == {OK: CLIENTS}
    assert one(oltp, "select count(*) from ledger.transactions where kind = 'reversal'") == (3 * 8,)
    assert shop.balances()["merchant_available:EUR"] == 1_000
    assert set(other.balances().values()) == {0}
    assert one(oltp, "select topup_id from core.topups where status = 'succeeded'") == (kept,)
    assert broken() == []


def test_sweepers_share_what_has_expired(oltp: psycopg.Connection, clients: list[Client]) -> None:
    shops = [Shop(oltp, f"acct_{number}").open(buckets=4) for number in range(3)]
    for number in range(90):
        shops[number % 3].authorize(100)
    expired = []
    ended = race(clients, lambda shop, _: expired.append(shop.later(days=8).expire()))
    assert ended == {OK: CLIENTS}
    assert sum(expired) == 90
    assert sum(count > 0 for count in expired) > 1
    assert broken() == []


def test_equal_keys_in_parallel_are_one_request(oltp: psycopg.Connection, clients: list[Client]) -> None:
    Shop(oltp).open()
    conflicts = Counter[str]()
    answers: dict[int, dict[str, Any]] = {}

    def ask(shop: Shop, number: int) -> None:
        while True:
            try:
                answers[number] = shop.call(f"key_{number % 8}", "topups.create", amount_minor=5, currency="EUR")
            except errors.LockNotAvailable:
                conflicts["conflict"] += 1
                time.sleep(0.005)  # as the error says: again later
            else:
                return

    assert race(clients, ask) == {OK: CLIENTS}
    assert len({answer["id"] for answer in answers.values()}) == 8
    assert sum(not answer["is_replayed"] for answer in answers.values()) == 8
    assert one(oltp, "select count(*), sum(amount_minor)::bigint from core.topups") == (8, 40)
    assert broken() == []


def test_an_id_given_by_the_caller_makes_each_operation_happen_once(
    oltp: psycopg.Connection, clients: list[Client]
) -> None:
    for merchant in ("acct_shop", "acct_other"):
        Shop(oltp, merchant).open()
    Shop(oltp).top_up(10_000)
    price = Shop(oltp).monthly_price(700)
    subscription = Shop(oltp).subscribe(price)
    invoice = Shop(oltp).invoice(500)
    actions: list[Callable[[Shop], object]] = [
        lambda shop: shop.payout(100, payout_id="po_one"),
        lambda shop: shop.transfer("acct_other", 100, transfer_id="tr_one"),
        lambda shop: shop.top_up(100, topup_id="tu_one"),
        lambda shop: shop.convert(100, "EUR/JPY", "160", 10, "fx_one"),
        lambda shop: shop.credit(invoice, 100, "cn_one"),
        lambda shop: shop.bill(subscription),
        lambda shop: shop.intend(100, intent_id="pi_one"),
        lambda shop: shop.invoice(300, invoice_id="in_one"),
    ]
    assert race(clients, lambda shop, number: actions[number % 8](shop)) == {OK: CLIENTS}
    posted = oltp.execute("select kind, count(*) from ledger.transactions group by kind").fetchall()
    assert dict(posted) == {
        **{"topup": 2, "payout": 1, "transfer": 1, "transfer_in": 1, "fx": 1},
        **{"invoice": 3, "invoice_settled": 2, "charge": 1},
    }
    assert broken() == []


def test_one_posting_repeated_in_parallel_happens_once(oltp: psycopg.Connection, clients: list[Client]) -> None:
    # Each currency races anew on a posting and on accounts that do not exist yet.
    Shop(oltp).open()
    currencies = ["EUR", "USD", "GBP", "JPY", "KWD", "CHF", "SEK", "NOK"]
    post = """
        select ledger.post('acct_shop', 'topup', %s, now(), array[
            ('bank', %s, 'D', 5, null), ('merchant_available', %s, 'C', 5, null)
        ]::ledger.leg[])
    """

    def again(shop: Shop, number: int) -> None:
        currency = currencies[number // 8]
        shop.connection.execute(post.encode(), (f"tu_{currency}", currency, currency))

    assert race(clients, again) == {OK: CLIENTS}
    assert one(oltp, "select count(*) from ledger.transactions") == (8,)
    assert one(oltp, "select count(*) from ledger.entries") == (16,)


def test_payouts_race_with_payments_and_their_settlement(oltp: psycopg.Connection, clients: list[Client]) -> None:
    shop = Shop(oltp).open(buckets=4)
    for day in range(3):
        shop.later(days=day).pay(2_000)

    def act(shop: Shop, number: int) -> None:
        shop = shop.later(days=number % 3)
        match number // 3 % 4:
            case 0 | 1:
                shop.pay(1_000 + number)
            case 2:
                shop.settle()
            case 3:
                shop.later(days=5).payout()

    ended = race(clients, act, rounds=2)
    # A payment that came after the settlement of its day is refused; nothing else is.
    assert set(ended) <= {OK, REFUSED}
    payouts = one(oltp, "select count(*) from core.payouts")[0]
    shop.later(days=9).payout()
    assert payouts >= 1
    assert broken() == []
    assert shop.balances()["merchant_available:EUR"] == 0
    assert shop.balances()["merchant_pending:EUR"] == 0


def test_a_hot_merchant_takes_payments_in_buckets(
    oltp: psycopg.Connection, clients: list[Client], full_size: bool
) -> None:
    Shop(oltp, "acct_hot").open(buckets=16)
    rounds = 20 if full_size else 1
    ended = race(clients, lambda shop, number: of(shop, "acct_hot").pay(1_000 + number), rounds)
    assert ended == {OK: CLIENTS * rounds}
    assert one(oltp, "select count(*) from ledger.accounts where code = 'card_receivable'")[0] > 8
    assert broken() == []


def test_a_month_closes_behind_the_postings_under_way(oltp: psycopg.Connection, clients: list[Client]) -> None:
    shop = Shop(oltp).open(buckets=8)
    charges = [shop.pay(1_000) for _ in range(8)]

    def act(shop: Shop, number: int) -> None:
        if number == 20:
            shop.connection.execute("call ledger.close_period('2026-03-01')")
        elif number % 2:
            shop.refund(charges[number % 8], 1)
        else:
            shop.pay(1_000)

    ended = race(clients, act, rounds=2)
    assert set(ended) == {OK, REFUSED}
    assert broken() == []


def test_everything_at_once(oltp: psycopg.Connection, clients: list[Client], full_size: bool) -> None:
    merchants = {"acct_hot": 4, "acct_a": 1, "acct_b": 1}
    late = NOON.replace(year=2026, month=4)
    names = list(merchants)
    charges: dict[str, list[str]] = {}
    intents: dict[str, list[str]] = {}
    invoices: dict[str, list[str]] = {}
    subscriptions: dict[str, str] = {}
    disputes: dict[str, list[str]] = {}
    for name, buckets in merchants.items():
        shop = Shop(oltp, name).open(buckets=buckets)
        charges[name] = [shop.pay(5_000) for _ in range(4)]
        disputes[name] = [shop.dispute(charges[name][0], 500, is_inquiry=at % 2 == 0) for at in range(2)]
        shop.top_up(50_000)
        intents[name] = [shop.authorize(3_000) for _ in range(4)]
        invoices[name] = [shop.invoice(1_000) for _ in range(4)]
        subscriptions[name] = shop.subscribe(shop.monthly_price(700, price_id=f"price_{name[5:]}"))

    def act(shop: Shop, number: int) -> None:
        draw = random.Random(number)  # noqa: S311 (a seeded choice of operations)
        name = draw.choice(names)
        shop = Shop(shop.connection, name, at=late)
        other = names[(names.index(name) + draw.choice([1, 2])) % 3]
        invoice, intent = draw.choice(invoices[name]), draw.choice(intents[name])
        actions: list[Callable[[], object]] = [
            lambda: shop.pay(2_000, application=(other, 100)),
            lambda: shop.pay(1_000),
            lambda: shop.refund(draw.choice(charges[name]), 400),
            lambda: shop.close_refund(shop.refund(draw.choice(charges[name]), 100, is_settled=False), "failed"),
            lambda: shop.dispute(draw.choice(charges[name]), 300),
            lambda: shop.advance(draw.choice(disputes[name]), draw.choice(["needs_response", "under_review", "won"])),
            lambda: shop.capture(intent, 2_500),
            lambda: shop.cancel(intent),
            lambda: shop.later(days=9).expire(),
            lambda: Shop(shop.connection, name).settle(),
            lambda: shop.payout(draw.randint(1, 2_000)),
            shop.payout,
            lambda: shop.reverse_transfer(shop.transfer(other, draw.randint(1, 900))),
            lambda: shop.convert(draw.randint(1, 900), "EUR/USD", "1.08", 25),
            lambda: shop.pay_invoice(invoice),
            lambda: shop.credit(invoice, 100),
            lambda: shop.end_invoice(invoice),
            lambda: shop.later(days=31 * draw.randint(0, 3)).bill(subscriptions[name]),
            lambda: shop.connection.execute("select ledger.seal()"),
            lambda: shop.call(f"key_{draw.randint(0, 3)}", "topups.create", amount_minor=9, currency="EUR"),
        ]
        draw.choice(actions)()

    ended = race(clients, act, rounds=30 if full_size else 4)
    # Refused: by a rule, because of other terms, or because a request with the same key is under way. Nothing else.
    assert set(ended) <= {OK, REFUSED, OTHER_TERMS, "55P03"}
    assert ended[OK] > ended.total() / 3
    seal(oltp)
    assert broken() == []
