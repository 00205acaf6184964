"""A history in the real stores: sound, repeatable, whole after a kill, and nobody's identity in clear."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from pymongo.database import Database

from ingestion.documents import land_documents
from payments.errors import UsageError
from payments.settings import settings
from payments.simulation import history
from payments.simulation.bank import COLLECTIONS as CONTENT
from payments.simulation.business import build_business
from payments.simulation.documents import COLLECTIONS
from payments.simulation.history import SimulationReport, simulate
from payments.simulation.identities import Identities
from payments.simulation.plan import Plan
from payments.simulation.streams import Streams
from payments.systems.documents.audit_chain import broken_links
from payments.systems.documents.definitions import definition_of
from payments.systems.oltp.check import check
from payments.systems.oltp.connection import connect
from payments.vault import KeyRing, decrypt_field, unwrap
from tests.conftest import empty_oltp
from tests.systems.documents_by_schema import valid_documents

Store = Database[dict[str, Any]]
TRANSACTIONS, DAYS, SEED = 700, 60, 11
# What depends on keys and nonces, and may differ between two stores with the same history.
KEYED = {
    "vault.subjects": ["key_id", "wrapped_key"],
    "identity.customers": ["name_encrypted", "email_encrypted", "phone_encrypted", "address_encrypted"],
    "core.customers": ["merchant_token", "network_token"],
    "core.payment_methods": ["fingerprint"],
    "core.charges": ["ip_network_token"],
}
# When the ledger learned of a posting, and in which transactions of the server.
RECORDED = {
    "ledger.transactions": ["recorded_at", "recorded_xid"],
    "ledger.seals": ["from_xid", "to_xid", "seal_hash", "sealed_at"],
}


def run() -> SimulationReport:
    return simulate(TRANSACTIONS, DAYS, SEED)


def empty(oltp: psycopg.Connection, documents: Store) -> None:
    empty_oltp(oltp)
    for name in COLLECTIONS + CONTENT:
        documents[name].delete_many({})


REFERENCE = {"core.currencies", "core.countries", "core.merchant_categories", "ledger.account_codes"}


def table_names(oltp: psycopg.Connection) -> list[str]:
    rows = oltp.execute(
        "select n.nspname || '.' || c.relname "
        "from pg_class as c inner join pg_namespace as n on c.relnamespace = n.oid "
        "where n.nspname in ('core', 'ledger', 'identity', 'vault') and c.relkind in ('r', 'p') "
        "and not c.relispartition order by 1"
    )
    return [name for (name,) in rows]


def oltp_digest(oltp: psycopg.Connection) -> dict[str, str]:
    """A digest of every table, over all columns that do not depend on keys."""
    digests = {}
    for table in table_names(oltp):
        left_out = "".join(f" - '{column}'" for column in (KEYED | RECORDED).get(table, []))
        row = oltp.execute(
            f"select count(*) || ' ' || md5(coalesce(string_agg(line, e'\\n' order by line), '')) "
            f"from (select (to_jsonb(t){left_out})::text as line from {table} as t) as lines".encode()
        ).fetchone()
        assert row is not None
        digests[table] = row[0]
    return digests


def without_what_varies(value: Any) -> Any:
    """A document without what depends on keys and nonces, and without the clock of the writer."""
    if isinstance(value, dict):
        left_out = ("text_encrypted", "written_at")
        return {key: without_what_varies(inner) for key, inner in value.items() if key not in left_out}
    return [without_what_varies(inner) for inner in value] if isinstance(value, list) else value


def documents_digest(documents: Store) -> dict[str, str]:
    digests = {}
    for name in COLLECTIONS:
        lines = sorted(repr(without_what_varies(document)) for document in documents[name].find())
        digests[name] = f"{len(lines)} {hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"
    return digests


@pytest.fixture(scope="module")
def known_digests() -> dict[str, str]:
    """Filled by the first run that nothing disturbs, for all tests of this file."""
    return {}


@pytest.fixture
def undisturbed(
    oltp: psycopg.Connection, documents: Store, platform_home: Path, known_digests: dict[str, str]
) -> dict[str, str]:
    """The digests of a run that nothing disturbed; the stores are empty."""
    assert platform_home.is_dir()
    if not known_digests:
        run()
        known_digests |= oltp_digest(oltp) | documents_digest(documents)
        empty(oltp, documents)
    return known_digests


def test_the_history_is_sound_and_a_second_call_changes_nothing(
    oltp: psycopg.Connection, documents: Store, platform_home: Path
) -> None:
    assert platform_home.is_dir()
    report = run()
    assert report.is_oltp_new
    assert report.tables["core.charges"] == TRANSACTIONS
    assert report.documents_inserted == report.collections
    assert [result for result in check() if not result.passed] == []
    for table, count in report.tables.items():
        row = oltp.execute(f"select count(*) from {table}".encode()).fetchone()
        assert row == (count,), table
    for collection, count in report.collections.items():
        assert documents[collection].count_documents({}) == count, collection
    assert oltp.execute("select sum(transaction_count) from ledger.seals").fetchone() == (
        report.tables["ledger.transactions"],
    )
    assert oltp.execute("select * from ledger.broken_seals()").fetchall() == []
    assert oltp.execute(
        "select sum(row_count) from ops.stray_rows() where table_name = 'ledger.entries'"
    ).fetchone() == (0,)
    told = oltp.execute("select row_key, changes -> 'rows' from ops.audit_log where operation = 'bulk load'").fetchall()
    assert told == [(Plan(TRANSACTIONS, DAYS, SEED, date(2026, 6, 30)).name, report.tables)]
    before = oltp_digest(oltp) | documents_digest(documents)
    keys = oltp.execute("select subject_id, wrapped_key from vault.subjects order by 1").fetchall()

    again = run()
    assert again.changed_nothing
    assert again.tables == report.tables
    assert ("PostgreSQL", "core.charges", f"{TRANSACTIONS:,} (already there)") in again.rows()
    assert oltp_digest(oltp) | documents_digest(documents) == before
    assert oltp.execute("select subject_id, wrapped_key from vault.subjects order by 1").fetchall() == keys


def test_the_same_seed_gives_the_same_rows_under_other_keys(
    undisturbed: dict[str, str],
    oltp: psycopg.Connection,
    documents: Store,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("PAYMENTS_KEY_RING", str(tmp_path / "another" / "ring.json"))
    settings.cache_clear()
    run()
    assert oltp_digest(oltp) | documents_digest(documents) == undisturbed


def test_another_history_is_refused(oltp: psycopg.Connection, documents: Store, platform_home: Path) -> None:
    assert platform_home.is_dir()
    run()
    before = oltp_digest(oltp)
    with pytest.raises(UsageError, match="other data"):
        simulate(TRANSACTIONS, DAYS, SEED + 1)
    with pytest.raises(UsageError, match="other data"):
        simulate(TRANSACTIONS + 1, DAYS, SEED)
    assert oltp_digest(oltp) == before

    documents["sessions"].delete_one({})
    for change in (
        "content_digest = 'of another version'",
        "document_counts = (document_counts::jsonb || '{\"sessions\": 999}')::json",
        "document_counts = (document_counts::jsonb - 'audit_events')::json",
    ):
        kept = oltp.execute("select content_digest, document_counts::text from simulation.runs").fetchone()
        oltp.execute(f"update simulation.runs set {change}".encode())
        with pytest.raises(UsageError, match="another version"):
            run()
        oltp.execute("update simulation.runs set content_digest = %s, document_counts = %s::json", kept)
    assert run().documents_inserted["sessions"] == 1


@pytest.mark.parametrize("name", ["sessions", "fraud_decisions"])
def test_documents_of_another_history_are_refused_before_anything_is_written(
    oltp: psycopg.Connection, documents: Store, platform_home: Path, name: str
) -> None:
    assert platform_home.is_dir()
    documents[name].insert_one(valid_documents(definition_of(name), 1, 1)[0])
    with pytest.raises(UsageError, match=f"collection {name}"):
        run()
    assert oltp.execute("select count(*) from core.merchants").fetchone() == (0,)


@pytest.mark.parametrize(
    "arguments",
    [{"transactions": 0}, {"days": 0}, {"seed": -1}, {"end": date(1970, 1, 1)}, {"transactions": 10**9}],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="Give a"):
        simulate(**{"transactions": 10, "days": 10, "seed": 1} | arguments)


def test_two_simulations_do_not_mix(
    oltp: psycopg.Connection, documents: Store, platform_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert platform_home.is_dir()
    monkeypatch.setattr(history, "_LOCK_TIMEOUT", "100ms")
    with connect(autocommit=True) as other:
        other.execute("select pg_advisory_lock(%s)", (history._ADVISORY_LOCK,))
        with pytest.raises(UsageError, match="Another simulation"):
            run()
    assert oltp.execute("select count(*) from core.merchants").fetchone() == (0,)
    assert documents["sessions"].find_one({}) is None


def test_lost_documents_are_written_again_and_only_they(
    oltp: psycopg.Connection, documents: Store, platform_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert platform_home.is_dir()
    monkeypatch.setattr("payments.simulation.document_writer._BATCH", 400)
    run()
    before = oltp_digest(oltp) | documents_digest(documents)
    kept_text = {one["_id"]: one["text_encrypted"] for one in documents["feedback"].find()}
    lost: Counter[str] = Counter()
    for name in COLLECTIONS:
        for row, document in enumerate(documents[name].find({}, {"_id": 1})):
            if row % 7 == 3 or (name == "click_events" and row < 900):
                lost[name] += documents[name].delete_one(document).deleted_count
    report = run()
    assert not report.is_oltp_new
    assert report.documents_inserted == {name: lost[name] for name in (*COLLECTIONS, *CONTENT)}
    assert oltp_digest(oltp) | documents_digest(documents) == before
    text = {one["_id"]: one["text_encrypted"] for one in documents["feedback"].find()}
    assert sum(text[key] == kept_text[key] for key in text) == len(text) - lost["feedback"]


def test_words_of_an_erased_person_are_not_written_again(
    oltp: psycopg.Connection, documents: Store, platform_home: Path
) -> None:
    assert platform_home.is_dir()
    run()
    one = documents["feedback"].find_one({})
    assert one is not None
    oltp.execute(
        "update vault.subjects set wrapped_key = null, erased_at = now() where subject_id = "
        "(select subject_id from identity.customers where customer_id = %s)",
        (one["customer_id"],),
    )
    gone = documents["feedback"].delete_many({"customer_id": one["customer_id"]}).deleted_count
    other = documents["feedback"].find_one({})
    assert other is not None
    documents["feedback"].delete_one({"_id": other["_id"]})
    report = run()
    assert report.documents_inserted["feedback"] == 1
    assert documents["feedback"].find_one({"_id": other["_id"]}) is not None
    assert documents["feedback"].count_documents({"customer_id": one["customer_id"]}) == 0 < gone


def killed_after(store: str, batches: int) -> int:
    """Run the simulation in a process that kills itself (SIGKILL) after so many batches into a store; its exit code."""
    program = f"""
        import os, signal
        from contextlib import contextmanager
        from payments.simulation import document_writer, history, oltp_writer

        oltp_writer._BATCH_ROWS, document_writer._BATCH = 1000, 400
        done = 0

        def advance(name, rows, total):
            global done
            done += ("." in name) == ({store!r} == "oltp")
            if done == {batches}:
                os.kill(os.getpid(), signal.SIGKILL)

        @contextmanager
        def progress():
            yield advance

        history._progress = progress
        history.simulate({TRANSACTIONS}, {DAYS}, {SEED})
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], env=os.environ.copy(), check=False
    ).returncode


def test_a_kill_while_postgresql_is_written_leaves_nothing_behind(
    undisturbed: dict[str, str], oltp: psycopg.Connection, documents: Store, full_size: bool
) -> None:
    written = {name for name in undisturbed if "." in name} - REFERENCE - {"ledger.seals"}
    every = sum(-(-int(undisturbed[name].split()[0]) // 1000) for name in written)
    # Within the tables, and when all of them are written but not committed.
    for batches in range(1, every + 1) if full_size else (every // 2, every):
        assert killed_after("oltp", batches) == -signal.SIGKILL
    run()
    assert oltp_digest(oltp) | documents_digest(documents) == undisturbed
    assert [result for result in check() if not result.passed] == []


def test_a_kill_while_documents_are_written_leaves_no_duplicate_and_no_hole(
    undisturbed: dict[str, str], oltp: psycopg.Connection, documents: Store, full_size: bool
) -> None:
    whole = sum(int(undisturbed[name].split()[0]) for name in COLLECTIONS)
    before = 0
    # Each run goes on where the one before was killed; a batch that is there already counts too.
    for batches in range(1, 8) if full_size else (2, 6):
        assert killed_after("documents", batches) == -signal.SIGKILL
        half = sum(documents[name].count_documents({}) for name in COLLECTIONS)
        assert before < half < whole
        before = half
    report = run()
    assert not report.is_oltp_new
    assert sum(report.documents_inserted[name] for name in COLLECTIONS) == whole - before
    assert oltp_digest(oltp) | documents_digest(documents) == undisturbed
    assert run().changed_nothing


def test_documents_refer_to_what_exists(oltp: psycopg.Connection, documents: Store, platform_home: Path) -> None:
    assert platform_home.is_dir()
    run()

    def keys(column: str, table: str) -> set[tuple[str, str]]:
        return set(oltp.execute(f"select merchant_id, {column} from {table}".encode()).fetchall())

    customers, intents = keys("customer_id", "core.customers"), keys("payment_intent_id", "core.payment_intents")
    charges = keys("charge_id", "core.charges")
    sessions = list(documents["sessions"].find())
    for session in sessions:
        assert session["customer_id"] is None or (session["merchant_id"], session["customer_id"]) in customers
        assert (session["payment_intent_id"] is not None) == session["has_converted"]
        assert session["payment_intent_id"] is None or (session["merchant_id"], session["payment_intent_id"]) in intents
        assert session["started_at"] < session["ended_at"]
    assert 0.3 < np.mean([session["has_converted"] for session in sessions]) < 0.6

    by_session: dict[str, list[dict[str, Any]]] = {}
    for event in documents["click_events"].find():
        by_session.setdefault(event["session_id"], []).append(event)
    assert set(by_session) == {session["_id"] for session in sessions}
    for session in sessions:
        events = by_session[session["_id"]]
        kinds = Counter(event["event_type"] for event in events)
        pages = kinds["page_view"] + kinds["product_view"] + kinds["checkout_started"]
        assert session["page_count"] == pages
        assert (kinds["payment_submitted"] == 1) == session["has_converted"]
        assert all(session["started_at"] <= event["occurred_at"] <= session["ended_at"] for event in events)
        assert {event["merchant_id"] for event in events} == {session["merchant_id"]}
    for feedback in documents["feedback"].find():
        assert (feedback["merchant_id"], feedback["customer_id"]) in customers
        charge = feedback.get("charge_id") or (feedback.get("charge") or {}).get("charge_id")
        assert charge is None or (feedback["merchant_id"], charge) in charges
        assert (feedback["rating"] is None) == (feedback["kind"] == "ticket")
    declined = list(documents["api_logs"].find({"status_code": 402}))
    assert declined
    assert all(log["error_code"] for log in declined)


def test_identity_is_nowhere_in_clear_and_readable_with_the_key(
    oltp: psycopg.Connection, documents: Store, platform_home: Path
) -> None:
    assert platform_home.is_dir()
    run()
    plan = Plan(TRANSACTIONS, DAYS, SEED, date(2026, 6, 30))
    business = build_business(plan)
    identities = Identities(Streams(SEED), business.population.subjects)
    emails = {person.email for person in identities.persons}
    assert len(emails) == len(identities.persons), "an e-mail address is of one person"

    parts = [oltp.execute(f"select t::text from {table} as t".encode()).fetchall() for table in table_names(oltp)]
    everything = "\n".join(line for rows in parts for (line,) in rows)
    for name in COLLECTIONS:
        everything += "\n".join(repr(document) for document in documents[name].find())
    for person in identities.persons:
        for secret in (person.email, person.name, person.phone, person.address):
            assert secret not in everything
    assert not re.search(r"[0-9]{1,3}(\.[0-9]{1,3}){3}", everything), "a full network address"
    assert not re.search(r"(?<![0-9A-Za-z.])[0-9]{13,19}(?![0-9A-Za-z])", everything), "may be a card number"

    ring = KeyRing.load_or_create(settings().key_ring_path)
    rows = oltp.execute(
        "select s.subject_id, s.wrapped_key, c.email_encrypted, c.name_encrypted, m.network_token "
        "from identity.customers as c inner join vault.subjects as s on c.subject_id = s.subject_id "
        "inner join core.customers as m on c.merchant_id = m.merchant_id and c.customer_id = m.customer_id"
    ).fetchall()
    by_id = dict(zip(identities.subject_ids, identities.persons, strict=True))
    tokens: dict[Any, set[str]] = {}
    for subject, wrapped, email, name, token in rows:
        data_key = unwrap(ring, wrapped, subject)
        assert decrypt_field(data_key, email, "email") == by_id[subject].email
        assert decrypt_field(data_key, name, "name") == by_id[subject].name
        tokens.setdefault(subject, set()).add(token)
    assert all(len(one) == 1 for one in tokens.values()), "one network token a person"
    assert len({next(iter(one)) for one in tokens.values()}) == len(tokens)

    feedback = documents["feedback"].find_one({"language": "en"})
    assert feedback is not None
    stored = oltp.execute(
        "select s.subject_id, s.wrapped_key from vault.subjects as s inner join identity.customers as c "
        "on s.subject_id = c.subject_id where c.merchant_id = %s and c.customer_id = %s",
        (feedback["merchant_id"], feedback["customer_id"]),
    ).fetchone()
    assert stored is not None
    text = decrypt_field(unwrap(ring, stored[1], stored[0]), feedback["text_encrypted"], "feedback")
    assert text.endswith(".")
    assert not any(letter.isdigit() for letter in text)


def test_the_size_asked_for_arrives_in_time(
    oltp: psycopg.Connection,
    documents: Store,
    platform_home: Path,
    full_size: bool,
    record_property: Callable[[str, object], None],
) -> None:
    """At full size: 100,000 charges are in PostgreSQL, checked, in under 20 seconds."""
    assert platform_home.is_dir()
    assert documents["sessions"].find_one({}) is None
    transactions, limit = (100_000, 20.0) if full_size else (3_000, 20.0)
    report = simulate(transactions, 120, 3)
    record_property("oltp_seconds", report.oltp_seconds)
    assert report.oltp_seconds < limit
    assert [result for result in check() if not result.passed] == []
    assert oltp.execute("select count(*) from core.charges").fetchone() == (transactions,)


def test_profiles_say_what_the_tables_say_and_every_document_lands(
    oltp: psycopg.Connection, documents: Store, platform_home: Path
) -> None:
    assert platform_home.is_dir()
    report = run()
    rows = oltp.execute(
        """
        with recent as (
            select
                merchant_id, customer_id, charge_id, amount_minor, currency, status, created_at,
                row_number() over (partition by customer_id order by created_at desc, charge_id desc) as place
            from core.charges
        ),
        spent as (
            select customer_id, currency, sum(amount_captured_minor)::bigint as amount_minor, count(*) as payment_count
            from core.charges where status = 'succeeded' group by customer_id, currency
        )
        select
            m.customer_id, m.merchant_id, m.version, m.country,
            (select sum(s.payment_count) from spent as s where s.customer_id = m.customer_id)::bigint,
            (select jsonb_agg(to_jsonb(s) - 'customer_id' order by s.currency) from spent as s
             where s.customer_id = m.customer_id),
            (select array_agg(array[r.charge_id, r.amount_minor::text, r.currency, r.status] order by r.place)
             from recent as r where r.customer_id = m.customer_id and r.place <= 10),
            (select min(c.created_at) from core.charges as c
             where c.customer_id = m.customer_id and c.status = 'succeeded'),
            (select max(c.created_at) from core.charges as c
             where c.customer_id = m.customer_id and c.status = 'succeeded')
        from core.customers as m
        where m.customer_id in (select customer_id from spent)
        """
    ).fetchall()
    profiles = {
        one["_id"]: (
            one["merchant_id"],
            one["version"],
            one["country"],
            one["payment_count"],
            one["spent"],
            [
                [charge["charge_id"], str(charge["amount_minor"]), charge["currency"], charge["status"]]
                for charge in one["recent_charges"]
            ],
            one["first_paid_at"],
            one["last_paid_at"],
        )
        for one in documents["customer_profiles"].find()
    }

    def stored(moment: datetime) -> datetime:
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    assert profiles == {customer: (*facts, stored(first), stored(last)) for customer, *facts, first, last in rows}
    charges = {
        key: tuple(facts)
        for key, *facts in oltp.execute(
            "select charge_id, version, amount_minor, currency, status, anomaly_score from core.charges"
        )
    }
    referred = [one["charge"] for one in documents["feedback"].find({"charge": {"$type": "object"}})]
    assert referred
    for one in referred:
        facts = (one["version"], one["amount_minor"], one["currency"], one["status"])
        assert facts == charges[one["charge_id"]][:4]
    for decision in documents["fraud_decisions"].find():
        _, amount, currency, status, score = charges[decision["_id"]]
        assert (decision["amount_minor"], decision["currency"]) == (amount, currency)
        assert decision["score"] == pytest.approx(float(score))
        assert decision["decision"] != "block" or status == "failed"
    assert broken_links(documents["audit_events"].find()) == []

    landed = {counts.entity: counts for landing in land_documents() for counts in landing.entities}
    for name in set(COLLECTIONS) - {"session_overflows"}:
        counts = landed[name]
        assert (counts.accepted, counts.quarantined) == (report.collections[name], 0), name
