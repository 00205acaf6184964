"""Bank statements: read without trust and to the minor unit, kept once, encrypted, and quarantined when refused."""

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pymongo.database import Database

from ingestion.bank_statements import add_statements
from ingestion.camt053 import DEEPEST, StatementError, minor_units, parse_statements
from ingestion.documents import land_documents
from ingestion.quarantine import list_quarantine
from payments.settings import PROJECT_ROOT, settings
from payments.simulation.camt053 import decimal_text, statement_xml
from payments.systems.documents.statements import ENTRIES_A_PAGE, LARGEST_MINOR, Entry, Statement, read_original
from payments.vault import KeyRing
from tests.ingestion.raw import latest

IBAN = "DE89370400440532013000"
NOON = datetime(2026, 6, 2, 12, tzinfo=UTC)
DAY = date(2026, 6, 1)
EXPONENTS = {"EUR": 2, "JPY": 0, "KWD": 3}
MOST = 20_000_000
Store = Database[dict[str, Any]]

pytestmark = pytest.mark.usefixtures("platform_home")


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    return KeyRing.load_or_create(tmp_path_factory.mktemp("ring") / "ring.json")


def entry(minor: int, direction: str = "debit", currency: str = "EUR", **other: Any) -> Entry:
    return replace(Entry("B-1", minor, currency, direction, "booked", DAY, DAY, "po_1"), **other)


def statement(*entries: Entry, currency: str = "EUR", opening: int = 10_000, name: str = "S1") -> Statement:
    closing = opening + sum(found.signed_minor for found in entries if found.status == "booked")
    return Statement(name, currency, opening, closing, DAY, DAY, entries)


def xml(*statements: Statement, account: str = IBAN, made_at: datetime = NOON) -> bytes:
    return statement_xml(account, statements, made_at, EXPONENTS[statements[0].currency])


GOOD = xml(statement(entry(1_234), entry(50, "credit", payout_id=None)))


def parse(content: bytes, ring: KeyRing) -> tuple[str, tuple[Statement, ...]]:
    return parse_statements([content[at : at + 1000] for at in range(0, len(content), 1000)], ring, MOST)


@st.composite
def statements(draw: st.DrawFn) -> Statement:
    currency = draw(st.sampled_from(sorted(EXPONENTS)))
    name = st.text("ABCxyz019._/-", min_size=1, max_size=12)
    days = st.dates(date(2000, 1, 1), date(2099, 12, 31))
    entries = st.builds(
        Entry,
        entry_ref=st.none() | name,
        amount_minor=st.integers(0, 10**9),
        currency=st.just(currency),
        direction=st.sampled_from(["credit", "debit"]),
        status=st.sampled_from(["booked", "pending"]),
        booked_on=days,
        value_on=st.none() | days,
        payout_id=st.none() | st.from_regex(r"po_[0-9A-Za-z]{1,24}", fullmatch=True),
        is_reversal=st.booleans(),
        reason_code=st.none() | st.sampled_from(["AC04", "MS03"]),
    )
    found = draw(st.lists(entries, max_size=8))
    return statement(*found, currency=currency, opening=draw(st.integers(-(10**10), 10**10)), name=draw(name))


@given(found=statements())
@examples(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_to_the_minor_unit(found: Statement, ring: KeyRing) -> None:
    assert parse(xml(found), ring) == (IBAN, (found,))


@given(minor=st.integers(0, LARGEST_MINOR), currency=st.sampled_from(sorted(EXPONENTS)), zeros=st.integers(0, 4))
def test_an_amount_is_its_digits(minor: int, currency: str, zeros: int) -> None:
    text = decimal_text(minor, EXPONENTS[currency])
    assert minor_units(f"{text}{'.' if '.' not in text else ''}{'0' * zeros}", currency) == minor
    with pytest.raises(StatementError, match="decimals"):
        minor_units(f"{text}{'.' if '.' not in text else ''}1", currency)


@pytest.mark.parametrize("text", ["", "1,50", "-1", "+1", "1e3", "1.5.0", "NaN", " ", "٣", str(LARGEST_MINOR + 1)])
def test_what_is_no_plain_amount_is_refused(text: str) -> None:
    with pytest.raises(StatementError):
        minor_units(text, "JPY")


def put_in(old: str, new: str, *, count: int = -1) -> bytes:
    assert old.encode() in GOOD
    return GOOD.replace(old.encode(), new.encode(), count)


PROLOG = '<?xml version="1.0" encoding="UTF-8"?>\n'
LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
REFUSED: dict[str, tuple[bytes, str]] = {
    "external entity": (
        put_in(PROLOG, f'{PROLOG}<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]>').replace(b">S1<", b">&x;<"),
        "unsafe_xml",
    ),
    "entity expansion": (
        put_in(PROLOG, f'{PROLOG}<!DOCTYPE d [<!ENTITY l0 "ha">{LAUGHS}]>').replace(b">S1<", b">&l9;<"),
        "unsafe_xml",
    ),
    "external document type": (
        put_in(PROLOG, f'{PROLOG}<!DOCTYPE d SYSTEM "http://127.0.0.1:1/d.dtd">'),
        "unsafe_xml",
    ),
    "undeclared entity": (put_in(">S1<", ">&x;<"), "broken_xml"),
    "cut off": (GOOD[: len(GOOD) // 2], "broken_xml"),
    "empty": (b"", "broken_xml"),
    "unknown encoding": (put_in('"UTF-8"', '"no-such"'), "broken_xml"),
    "another root": (b"<html/>", "not_camt053"),
    "another namespace": (put_in("camt.053.001.08", "camt.052.001.08"), "not_camt053"),
    "an old version": (put_in("camt.053.001.08", "camt.053.001.01"), "not_camt053"),
    "too deep": (put_in("<Stmt>", "<a>" * DEEPEST + "</a>" * DEEPEST + "<Stmt>"), "too_deep"),
    "too many decimals": (put_in("12.34<", "12.345<"), "too_many_decimals"),
    "unknown currency": (put_in('Ccy="EUR"', 'Ccy="XYZ"'), "unknown_currency"),
    "two currencies": (put_in('Ccy="EUR">0.50', 'Ccy="USD">0.50'), "mixed_currencies"),
    "a sum that is wrong by a cent": (put_in("12.34<", "12.35<"), "wrong_sum"),
    "no closing balance": (put_in("CLBD", "CLAV"), "missing_balance"),
    "no account": (put_in("IBAN", "BBAN"), "missing_value"),
    "no direction": (put_in("<CdtDbtInd>DBIT</CdtDbtInd>", ""), "missing_value"),
    "another direction": (put_in("DBIT", "BOTH"), "wrong_value"),
    "another status": (put_in("BOOK", "INFO"), "unknown_status"),
    "no day": (
        put_in("<BookgDt>", "<NoDt>").replace(b"</BookgDt>", b"</NoDt>").replace(b"ValDt", b"X"),
        "missing_value",
    ),
    "no such day": (put_in("<BookgDt><Dt>2026-06-01", "<BookgDt><Dt>2026-06-31"), "wrong_value"),
    "a part": (put_in("<LastPgInd>true", "<LastPgInd>false"), "part_of_statement"),
    "no statement": (put_in("Stmt>", "Rpt>"), "no_statement"),
    "the same twice": (xml(statement(), statement()), "repeated_statement"),
    "two accounts": (
        xml(statement(), statement(name="S2")).replace(IBAN.encode(), b"FR1420041010050500013M02606", 1),
        "several_accounts",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str, ring: KeyRing) -> None:
    content, rule = REFUSED[what]
    with pytest.raises(StatementError) as refused:
        parse(content, ring)
    assert refused.value.rule == rule
    assert "\n" not in str(refused.value)
    assert IBAN not in str(refused.value)


def test_every_cut_is_refused(ring: KeyRing) -> None:
    for size in range(0, len(GOOD.rstrip()), 23):
        with pytest.raises(StatementError):
            parse(GOOD[:size], ring)


def peak_bytes(run: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def nesting(megabytes: int) -> Iterator[bytes]:
    """A statement that begins well, and then elements within elements, a megabyte a piece."""
    yield GOOD[: GOOD.index(b"<Stmt>")]
    yield from (b"<a>" * 350_000 for _ in range(megabytes))


def test_nesting_without_end_is_refused_early(ring: KeyRing) -> None:
    asked: list[int] = []

    def chunks() -> Iterator[bytes]:
        for chunk in nesting(100):
            asked.append(len(chunk))
            yield chunk[:65_536]

    def run() -> None:
        with pytest.raises(StatementError, match=f"more than {DEEPEST} deep"):
            parse_statements(chunks(), ring, 10**9)

    assert peak_bytes(run) < 4_000_000
    assert len(asked) == 2, "nothing is read after the piece that is refused"


def test_elements_and_bytes_without_end_are_refused(ring: KeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingestion.camt053.MOST_ELEMENTS", 1_000)
    flat = [GOOD[: GOOD.index(b"<Stmt>")], b"<a/>" * 2_000]
    with pytest.raises(StatementError, match="more than 1,000 elements"):
        parse_statements(flat, ring, MOST)
    with pytest.raises(StatementError, match="more than 3,000 bytes"):
        parse_statements([flat[0], *([b" " * 1_000] * 10)], ring, 3_000)


def test_a_large_statement_takes_little_memory(ring: KeyRing) -> None:
    content = xml(statement(*(entry(1, entry_ref=f"B-{number}") for number in range(1_500))))
    tree = peak_bytes(lambda: parse(content, ring))
    assert tree < 5 * len(content), "entries are dropped once they are read"


def part(end_to_end: str, amount: int) -> str:
    """A part of a batch, as version 02 writes it."""
    priced = f'<AmtDtls><TxAmt><Amt Ccy="JPY">{amount}</Amt></TxAmt></AmtDtls>'
    return f"<TxDtls><Refs><EndToEndId>{end_to_end}</EndToEndId></Refs>{priced}</TxDtls>"


def test_an_older_version_a_batch_and_long_numbers(ring: KeyRing) -> None:
    written = f"""<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.02"><BkToCstmrStmt>
      <GrpHdr><MsgPgntn><PgNb>1</PgNb><LastPgInd>true</LastPgInd></MsgPgntn></GrpHdr>
      <Stmt><Id>{"20260601" * 2}</Id><Acct><Id><Othr><Id>12 345</Id></Othr></Id></Acct>
      <Bal><Tp><CdOrPrtry><Cd>PRCD</Cd></CdOrPrtry></Tp><Amt Ccy="JPY">5.00</Amt><CdtDbtInd>DBIT</CdtDbtInd>
        <Dt><DtTm>2026-05-31T23:00:00+09:00</DtTm></Dt></Bal>
      <Bal><Tp><CdOrPrtry><Cd>CLBD</Cd></CdOrPrtry></Tp><Amt Ccy="JPY">35</Amt><CdtDbtInd>DBIT</CdtDbtInd>
        <Dt><Dt>2026-06-01</Dt></Dt></Bal>
      <Ntry><Amt Ccy="JPY">30</Amt><CdtDbtInd>DBIT</CdtDbtInd><Sts>BOOK</Sts><ValDt><Dt>2026-06-01</Dt></ValDt>
        <AcctSvcrRef>{"4242" * 4}</AcctSvcrRef><NtryDtls>
        {part("po_a", 10)}{part("rent", 20)}
      </NtryDtls></Ntry></Stmt></BkToCstmrStmt></Document>"""
    account, (read,) = parse(written.encode("utf-16"), ring)
    assert account == "12 345"
    assert (read.opening_balance_minor, read.closing_balance_minor) == (-5, -35)
    assert (read.period_start_on, read.period_end_on) == (date(2026, 5, 31), DAY)
    assert [(found.payout_id, found.amount_minor, found.booked_on) for found in read.entries] == [
        ("po_a", 10, DAY),
        (None, 20, DAY),
    ]
    # A number as long as a card's is kept as a token, so that neither validator nor landing takes it for one.
    assert all((found.entry_ref or "").startswith("br_") for found in read.entries)
    assert read.statement_id.startswith("br_")
    with pytest.raises(StatementError, match="parts of a batch"):
        parse(written.replace(">20<", ">19<").encode("utf-16"), ring)


def saved(folder: Path, content: bytes, name: str = "statement.xml") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def everything(documents: Store) -> bytes:
    """Every document of the store, files included, as one text."""
    return b"".join(
        repr(found).encode() for name in documents.list_collection_names() for found in documents[name].find()
    )


@pytest.mark.usefixtures("oltp")
def test_a_statement_is_kept_once_and_its_account_nowhere(documents: Store, platform_home: Path) -> None:
    content = xml(statement(*(entry(number, entry_ref=f"B-{number}") for number in range(1, ENTRIES_A_PAGE + 3))))
    path = saved(platform_home, content)
    (added,), refused = add_statements([path])
    assert (added.statements, added.entries, added.new_pages, refused) == (1, ENTRIES_A_PAGE + 2, 2, [])
    first, second = documents["bank_statements"].find().sort("page")
    assert [len(page["entries"]) for page in (first, second)] == [ENTRIES_A_PAGE, 2]
    assert [page["entry_count"] for page in (first, second)] == [ENTRIES_A_PAGE + 2] * 2
    assert second["entries"][-1]["entry_no"] == ENTRIES_A_PAGE + 2
    assert IBAN.encode() not in everything(documents)
    ring = KeyRing.load_or_create(settings().key_ring_path)
    assert read_original(documents, ring, first["file_id"]) == content

    before = everything(documents)
    (again,), _ = add_statements([path])
    # The bank sends the same statement in another file: nothing new is said.
    resent = saved(platform_home, content.replace(b"12:00:00", b"13:00:00"), "resent.xml")
    (other,), _ = add_statements([resent])
    assert (again.new_pages, other.new_pages) == (0, 0)
    assert everything(documents) == before

    (counts,) = land_documents(["bank_statements"])[0].entities
    assert (counts.read, counts.accepted) == (2, 2)
    (row, _) = latest("documents", "bank_statements")
    assert '"payout_id":"po_1"' in row["entries"]


@pytest.mark.usefixtures("oltp")
def test_what_a_crash_left_is_used_or_removed(
    documents: Store, platform_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(platform_home, GOOD)
    with monkeypatch.context() as killed:
        killed.setattr("payments.systems.documents.statements.UpdateOne", None)
        with pytest.raises(TypeError):
            add_statements([path])
    (left,) = documents["originals.files"].find()
    assert documents["bank_statements"].find_one() is None
    (added,), _ = add_statements([path])
    assert added.new_pages == 1
    assert list(documents["originals.files"].find()) == [left], "the file that was there is the one that is used"

    # Chunks without their entry: the server was killed within the file.
    documents["originals.files"].delete_many({})
    documents["bank_statements"].delete_many({})
    documents["originals.chunks"].update_many({}, {"$set": {"data": b"half"}})
    add_statements([path])
    (page,) = documents["bank_statements"].find()
    ring = KeyRing.load_or_create(settings().key_ring_path)
    assert read_original(documents, ring, page["file_id"]) == GOOD

    # A file that nobody can open any more, as under the key ring of before: it is replaced.
    documents["bank_statements"].delete_many({})
    size = documents["originals.files"].find()[0]["length"]
    documents["originals.chunks"].update_many({}, {"$set": {"data": b"\x01" * size}})
    add_statements([path])
    assert read_original(documents, ring, page["file_id"]) == GOOD


@pytest.mark.usefixtures("documents", "oltp")
def test_a_refused_file_stands_in_quarantine_until_it_fits(
    platform_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, changed = saved(platform_home, GOOD), saved(platform_home, xml(statement(entry(9))), "changed.xml")
    monkeypatch.setenv("PAYMENTS_CONTENT_MAX_BYTES", str(len(GOOD) - 1))
    settings.cache_clear()
    _, (refused,) = add_statements([good])
    assert (refused.file, refused.rule) == (good, "too_large")
    (item,) = list_quarantine()
    assert (item.entity, item.rule, item.reason) == ("bank_statements", "too_large", refused.reason)
    assert IBAN not in item.record
    land_documents(["bank_statements"])
    add_statements([good])
    assert len(list_quarantine()) == 1, "a landing settles nothing of it, and it is not written twice"

    monkeypatch.delenv("PAYMENTS_CONTENT_MAX_BYTES")
    settings.cache_clear()
    (added,), (other,) = add_statements([good, changed])
    assert (added.new_pages, other.rule) == (1, "changed_statement")
    assert [item.rule for item in list_quarantine()] == ["changed_statement"]


@pytest.mark.usefixtures("documents", "oltp")
def test_a_hundred_megabytes_of_nesting_are_refused_early(platform_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = platform_home / "nesting.xml"
    with path.open("wb") as file:
        file.writelines(nesting(100))
    assert path.stat().st_size > 100_000_000
    assert peak_bytes(lambda: add_statements([path])) < 8_000_000
    monkeypatch.setenv("PAYMENTS_CONTENT_MAX_BYTES", "1000000000")
    settings.cache_clear()
    assert peak_bytes(lambda: add_statements([path])) < 8_000_000
    assert [item.rule for item in list_quarantine()] == ["too_deep"]
    path.unlink()


@pytest.mark.usefixtures("oltp")
def test_the_command_takes_what_is_good_and_says_in_a_line_what_is_not(documents: Store, platform_home: Path) -> None:
    files = [
        saved(platform_home, GOOD, "good.xml"),
        saved(platform_home, REFUSED["external entity"][0], "evil.xml"),
        saved(platform_home, REFUSED["cut off"][0], "short.xml"),
    ]
    run = subprocess.run(
        [sys.executable, "-m", "payments", "statements", "add", *map(str, files)],
        capture_output=True,
        text=True,
        env=os.environ,
        cwd=PROJECT_ROOT,
        check=False,
    )
    assert run.returncode == 2, run.stdout + run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
    assert "evil.xml is refused and in quarantine (and 1 other files): it declares a document type" in run.stderr
    assert documents["bank_statements"].count_documents({}) == 1
    assert sorted(item.rule for item in list_quarantine()) == ["broken_xml", "unsafe_xml"]
    assert documents["originals.files"].count_documents({}) == 1
