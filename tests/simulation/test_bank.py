"""The bank of a history: files that say what the documents say, balances that go on, and faults to be found."""

from collections import Counter
from datetime import date
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pytest

from ingestion.camt053 import parse_statements
from payments.simulation.bank import Bank
from payments.simulation.business import build_business
from payments.simulation.plan import Plan
from payments.simulation.tables import Tables
from payments.systems.documents.media import media_type_of
from payments.vault import KeyRing

PLAN = Plan(3_000, 120, 11, date(2026, 6, 30))


def bank(plan: Plan = PLAN) -> Bank:
    return Bank(Tables(build_business(plan)))


@pytest.fixture(scope="module")
def made() -> Bank:
    return bank()


def test_a_file_says_what_its_document_says(made: Bank, tmp_path: Path) -> None:
    ring = KeyRing.load_or_create(tmp_path / "ring.json")
    for money, statement in made.statements:
        file = made.file(money, statement)
        assert parse_statements([file.content], ring, 10**8) == (file.account, (statement,))
    for evidence in made.evidence:
        assert media_type_of(evidence.content) in {"application/pdf", "image/png"}


def test_balances_go_on_and_files_are_few(made: Bank) -> None:
    assert 1 < len(made.statements) <= 200
    for _, of_account in groupby(made.statements, key=lambda one: one[0]):
        for (_, before), (_, after) in pairwise(of_account):
            assert after.opening_balance_minor == before.closing_balance_minor
            assert before.period_end_on < after.period_start_on
    ids = [statement.statement_id for _, statement in made.statements]
    assert len(set(ids)) == len(ids)


def test_the_bank_gets_a_few_payouts_wrong(made: Bank) -> None:
    """What the bank says, against what the book says, counted without the warehouse."""
    payouts = made._names.business.treasury.payouts
    ids = made._names.spaces["po"].strings(np.arange(len(payouts.amount)))
    paid = {
        name: int(amount)
        for name, amount, at, failed in zip(ids, payouts.amount, payouts.paid, payouts.failed, strict=True)
        if at >= 0 and failed < 0
    }
    sent: Counter[str] = Counter()
    others = 0
    for _, statement in made.statements:
        for entry in statement.entries:
            if entry.payout_id is None:
                others += 1
            elif entry.status == "booked":
                sent[entry.payout_id] -= entry.signed_minor
    assert len([name for name in paid if name not in sent]) == 3
    assert len([name for name in paid if name in sent and sent[name] != paid[name]]) == 3
    assert all(sent[name] == 0 for name in sent.keys() - paid.keys()), "what failed later came back"
    assert others > 0


def test_the_same_seed_gives_the_same_files(made: Bank) -> None:
    again, other = bank(), bank(Plan(3_000, 120, 12, PLAN.end))
    assert [again.file(*one) for one in again.statements] == [made.file(*one) for one in made.statements]
    assert again.evidence == made.evidence
    assert other.statements != made.statements
