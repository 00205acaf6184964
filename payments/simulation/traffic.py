"""Live traffic: applications that call ``api.call`` from several connections, repeat themselves, lose their connection
and crash, as applications do.

Clients are threads: a request spends its time in PostgreSQL, while libpq waits without the interpreter lock.
"""

import select
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from math import ceil
from random import Random
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import Connection, sql
from psycopg.types.json import Jsonb

from payments.errors import UsageError
from payments.settings import settings
from payments.simulation.traffic_shops import ROLE, Shop, open_shops
from payments.simulation.traffic_visits import Answer, Request, visit
from payments.systems.oltp.connection import connect
from payments.vault import KeyRing

_DUPLICATED = 0.04
_CRASHED = 0.01
"""How often a client crashes at each of the three moments."""
_PAUSE_SECONDS = 0.02
_AWAY_SECONDS = 0.2
_ANSWER_SECONDS = 5.0
_CHARGED = {"payment_intents.confirm", "payment_intents.capture", "invoices.pay"}


class Crash(Enum):
    """When a client goes away: its connection closes there."""

    UNDER_WAY = "while the server works"
    BEFORE_COMMIT = "before commit"
    AFTER_COMMIT = "after commit, the answer unread"


@dataclass(frozen=True)
class Answered:
    """One request whose answer reached the client."""

    idempotency_key: str
    request: Request
    answer: Answer


@dataclass
class TrafficReport:
    """What the clients saw.

    Args:
        seconds: how long the traffic ran.
        counts: requests; acknowledged and declined ones; refused (a rule of the business, such as too little to pay
            out); retried (sent again after a lost connection, a crash or a serialization failure); crashes;
            duplicates (sent again although answered); replayed (answers that said so); conflicts (the same key was
            under way); reconnects; in_doubt (given up without an answer); errors.
        latencies: seconds from first sending to the answer, retries included, of each answered request by operation.
        answered: every answer, in no order.
        differing: repetitions that got another answer; there must be none.
        errors: what the server said to requests that should have worked; there should be none.
    """

    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    latencies: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    answered: list[Answered] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def acknowledged(self) -> list[tuple[str, str]]:
        """(merchant id, charge id) of each charge that a client was told succeeded, authorizations left out."""
        manual = {
            a.answer.id
            for a in self.answered
            if a.request.operation == "payment_intents.create" and a.request.parameters["capture_method"] == "manual"
        }
        return [
            (a.request.merchant_id, a.answer.id)
            for a in self.answered
            if a.request.operation in _CHARGED
            and a.answer.status == 200
            and a.answer.id is not None
            and not (
                a.request.operation == "payment_intents.confirm" and a.request.parameters["payment_intent_id"] in manual
            )
        ]

    def acknowledged_ids(self, operation: str) -> list[tuple[str, str]]:
        """(merchant id, id) of everything else that an operation (``refunds.create``) was told to have made."""
        return [
            (a.request.merchant_id, a.answer.id)
            for a in self.answered
            if a.request.operation == operation and a.answer.status == 200 and a.answer.id is not None
        ]

    def add(self, other: "TrafficReport") -> None:
        """Take over what another report saw; seconds stay."""
        self.counts += other.counts
        for operation, seconds in other.latencies.items():
            self.latencies[operation] += seconds
        self.answered += other.answered
        self.differing += other.differing
        self.errors += other.errors

    def rows(self) -> Iterator[tuple[str, int, float, float, float, float]]:
        """Operation, answers, answers a second, and p50, p95 and p99 in milliseconds; the last row is over all."""
        everything = [second for seconds in self.latencies.values() for second in seconds]
        for operation, seconds in [*sorted(self.latencies.items()), ("all", everything)]:
            if seconds:
                p50, p95, p99 = (percentile(seconds, share) * 1000 for share in (0.50, 0.95, 0.99))
                yield operation, len(seconds), len(seconds) / self.seconds, p50, p95, p99


def percentile(values: list[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed; values must not be empty."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def run_traffic(
    *, tps: float, seconds: float, clients: int, seed: int, stop: threading.Event | None = None
) -> TrafficReport:
    """Let clients call the operational store until the time is over or ``stop`` is set.

    What they ask for follows from the seed, but idempotency keys are new in every run: a second run pays again.

    Args:
        tps: requests a second over all clients; 0 is as fast as they can.
        seconds: how long.
        clients: connections.
        seed: of every draw; also names the merchants, which are made at the first run.
        stop: ends the run early.

    Raises:
        UsageError: the store cannot be reached at the beginning, or has no schema.
    """
    stop = stop or threading.Event()
    with connect(autocommit=True) as connection:
        try:
            shops = open_shops(connection, KeyRing.load_or_create(settings().key_ring_path), seed)
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedFunction):
            raise UsageError("The operational store has no schema: run payments up.") from None
    run = uuid4().hex[:12]
    began = time.monotonic()
    workers = [
        _Client(
            draw=Random(f"{seed}/{number}"),  # noqa: S311 (a repeatable draw, no secret)
            shops=shops,
            keys=f"{run}-{number}",
            stop=stop,
            began=began,
            deadline=began + seconds,
            interval=clients / tps if tps > 0 else 0.0,
            first=began + (number / tps if tps > 0 else 0.0),
        )
        for number in range(clients)
    ]
    threads = [threading.Thread(target=worker.run, name=f"client {n}") for n, worker in enumerate(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = TrafficReport(seconds=time.monotonic() - began)
    for worker in workers:
        if worker.failure is not None:
            raise worker.failure
        report.add(worker.seen)
    return report


class _NoAnswerError(Exception):
    """The request has no answer: it was refused, it failed, or the time is over."""


@dataclass
class _Client:
    """One application process: a connection of its own, and its own view of what happened."""

    draw: Random
    shops: list[Shop]
    keys: str
    stop: threading.Event
    began: float
    deadline: float
    interval: float
    first: float
    seen: TrafficReport = field(default_factory=TrafficReport)
    failure: BaseException | None = None
    _connection: Connection | None = None
    _sent: int = 0

    def run(self) -> None:
        """Make one visit after another."""
        try:
            while not self._is_over():
                self._attend()
        except BaseException as failure:
            self.failure = failure
        finally:
            self._hang_up()

    def _attend(self) -> None:
        """Make one visit, to its end or to the first request that got no answer."""
        conversation = visit(self.draw, self.shops)
        try:
            request = next(conversation)
            while True:
                self._wait_for_turn()
                if self._is_over():
                    return
                request = conversation.send(self._ask(request))
        except (StopIteration, _NoAnswerError):
            return

    def _is_over(self) -> bool:
        return self.stop.is_set() or time.monotonic() >= self.deadline

    def _wait_for_turn(self) -> None:
        if self.interval:
            due = self.first + self._sent * self.interval
            self.stop.wait(max(0.0, min(due, self.deadline) - time.monotonic()))

    def _ask(self, request: Request) -> Answer:
        """Send a request until it is answered, and sometimes once more."""
        key = f"{self.keys}-{self._sent}"
        self._sent += 1
        self.seen.counts["requests"] += 1
        sent_at = time.monotonic()
        answer, _ = self._send_until_answered(key, request, self._drawn_crash())
        self.seen.latencies[request.operation].append(time.monotonic() - sent_at)
        self.seen.counts["acknowledged" if answer.status == 200 else "declined"] += 1
        self.seen.answered.append(Answered(key, request, answer))
        if self.draw.random() < _DUPLICATED:
            self._repeat(key, request, answer)
        return answer

    def _drawn_crash(self) -> Crash | None:
        number = int(self.draw.random() / _CRASHED)
        return list(Crash)[number] if number < len(Crash) else None

    def _repeat(self, key: str, request: Request, answer: Answer) -> None:
        self.seen.counts["duplicates"] += 1
        again, is_replayed = self._send_until_answered(key, request, None)
        if again != answer or not is_replayed:
            self.seen.differing.append(f"{request.operation} {key}: {answer}, then {again}, replayed {is_replayed}")

    def _send_until_answered(self, key: str, request: Request, crash: Crash | None) -> tuple[Answer, bool]:
        """Return the answer, and whether it was replayed."""
        while True:
            try:
                with self._connected() as connection:
                    if crash is not None:
                        self.seen.counts["crashes"] += 1
                        moment, crash = crash, None
                        _crash(connection, key, request, moment)
                        self._hang_up()
                    else:
                        response = _call(connection, key, request)
                        self.seen.counts["replayed"] += response["is_replayed"]
                        answer = Answer(response["status"], response["id"], response["failure_code"])
                        return answer, response["is_replayed"]
            except psycopg.errors.LockNotAvailable:
                self.seen.counts["conflicts"] += 1
            except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
                self.seen.counts["serialization failures"] += 1
            except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ReadOnlySqlTransaction):
                self._hang_up()
                self.stop.wait(self.draw.random() * _AWAY_SECONDS)  # a server that recovers must not be stormed
            except psycopg.errors.CheckViolation:
                self.seen.counts["refused"] += 1
                raise _NoAnswerError from None
            except psycopg.Error as error:
                self.seen.counts["errors"] += 1
                self.seen.errors.append(f"{request.operation} {key}: {error}")
                raise _NoAnswerError from None
            if self._is_over():
                self.seen.counts["in_doubt"] += 1
                raise _NoAnswerError
            self.seen.counts["retried"] += 1
            self.stop.wait(self.draw.random() * _PAUSE_SECONDS)

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """Give the connection, a new one where there is none.

        Raises:
            psycopg.OperationalError: none can be had now.
        """
        if self._connection is None or self._connection.closed:
            try:
                self._connection = connect(autocommit=True)
            except UsageError as error:
                raise psycopg.OperationalError(str(error)) from None
            self._connection.execute(f"set role {ROLE}")
            self._connection.execute("set app.actor = 'traffic'")
            self.seen.counts["connections"] += 1
        yield self._connection

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _call(connection: Connection, key: str, request: Request) -> dict[str, Any]:
    """Do one request in a transaction of its own, in one round trip, and return the response."""
    row = connection.execute(
        """
        with acting as materialized (select set_config('app.merchant_id', %(merchant)s, true))

        select api.call(%(merchant)s, %(key)s, %(operation)s, %(parameters)s) from acting
        """,
        {
            "merchant": request.merchant_id,
            "key": key,
            "operation": request.operation,
            "parameters": Jsonb(request.parameters),
        },
    ).fetchone()
    assert row is not None  # noqa: S101 (a function gives one row)
    response: dict[str, Any] = row[0]
    return response


def _crash(connection: Connection, key: str, request: Request, moment: Crash) -> None:
    """Send a request and go away at this moment; the caller closes the connection."""
    text = sql.SQL(
        "begin; select set_config('app.merchant_id', {merchant}, true); "
        "select api.call({merchant}, {key}, {operation}, {p})"
    ).format(
        merchant=sql.Literal(request.merchant_id),
        key=sql.Literal(key),
        operation=sql.Literal(request.operation),
        p=sql.Literal(Jsonb(request.parameters)),
    )
    if moment is Crash.AFTER_COMMIT:
        text += sql.SQL("; commit")
    server = connection.pgconn
    server.send_query(text.as_bytes(connection))
    server.flush()
    if moment is not Crash.UNDER_WAY:
        # The server sends nothing before it has done all that it was asked.
        select.select([server.socket], [], [], _ANSWER_SECONDS)
