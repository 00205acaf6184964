"""Each invariant of ``payments check`` holds after live traffic, and fails when its own fault is planted."""

import psycopg
import pytest

from payments.systems.oltp.check import INVARIANTS, Invariant, ask, check
from tests.systems.shop import busy_day

# By invariant: statements that plant the fault behind the triggers' backs.
FAULTS = {
    "every ledger transaction has entries and balances per currency": [
        "update ledger.entries set amount_minor = amount_minor + 1 where entry_no = 1",
        "insert into ledger.transactions values ('lt_empty', 'charge', 'ch_none', now())",
    ],
    "the whole ledger sums to zero per currency": [
        "update ledger.accounts set debits_posted_minor = debits_posted_minor + 1 where code = 'bank'",
    ],
    "the totals of every ledger account are the sums of its entries": [
        "update ledger.accounts set debits_posted_minor = debits_posted_minor + 1",
        "update ledger.accounts set entry_count = entry_count + 1",
        "insert into ledger.accounts (ledger_account_id, code, currency, normal_side, credits_posted_minor) "
        "values ('platform:bank:USD', 'bank', 'USD', 'D', 1)",
    ],
    "the entries of every ledger account are numbered without a gap": [
        "update ledger.entries set account_entry_no = account_entry_no + 1000 where account_entry_no = 2",
        "delete from ledger.entries where account_entry_no = 1",
    ],
    "the balance after every entry follows from the one before it, the last is the account's": [
        "update ledger.entries set balance_after_minor = balance_after_minor + 1 where account_entry_no = 3",
        "update ledger.accounts set debits_posted_minor = debits_posted_minor + 1",
    ],
    "no charge is refunded beyond what was captured, and its live refunds add up to what it says": [
        "update core.refunds set amount_minor = amount_minor + 1",
        "update core.refunds set status = 'failed'",
        "update core.refunds set currency = 'USD'",
        "update core.charges set amount_refunded_minor = 0",
    ],
    "no dispute exceeds what was captured, and exactly the disputed charges say so": [
        "update core.disputes set amount_minor = 1000000",
        "update core.disputes set currency = 'USD'",
        "update core.charges set is_disputed = false",
        "update core.charges set is_disputed = true",
    ],
    "every intent has at most one successful charge, of its currency, and received what was captured": [
        "update core.payment_intents set amount_received_minor = 0",
        "update core.payment_intents set currency = 'USD'",
        "update core.payment_intents set status = 'processing'",
        "drop index core.one_success_per_intent; "
        "update core.charges set payment_intent_id = (select min(payment_intent_id) from core.charges)",
    ],
    "every movement of money has exactly one balance transaction, with its amount, fee and net": [
        "delete from core.balance_transactions where type = 'dispute_reversal'",
        "update core.balance_transactions set source_id = source_id || 'x' where type = 'charge'",
        "update core.balance_transactions set amount_minor = amount_minor + 1, net_minor = net_minor + 1 "
        "where type = 'refund'",
        "update core.balance_transactions set fee_minor = fee_minor + 1, net_minor = net_minor - 1 "
        "where type = 'dispute'",
        "update core.balance_transactions set fee_minor = -1, net_minor = amount_minor + 1 where type = 'charge'",
        "update core.balance_transactions set currency = 'USD'",
    ],
    "every movement of money is posted once, with the legs that its kind demands": [
        "delete from ledger.entries where posted_at = (select min(posted_at) from ledger.entries)",
        "update ledger.transactions set source_id = source_id || 'x' where kind = 'settlement'",
        "update ledger.entries set side = case side when 'D' then 'C' else 'D' end where entry_no < 3",
        "update core.balance_transactions set fee_minor = fee_minor + 1, net_minor = net_minor - 1 "
        "where type = 'charge'",
        "update core.disputes set status = 'lost', closed_at = now() where status = 'needs_response'",
    ],
    "what every merchant owns in the ledger is the sum of its balance transactions, per currency": [
        "update ledger.accounts set credits_posted_minor = credits_posted_minor + 1 where merchant_id is not null",
        "update core.balance_transactions set amount_minor = amount_minor + 1, net_minor = net_minor + 1",
        "delete from core.balance_transactions",
    ],
    "every constraint is validated, and no declared foreign key is missing": [
        "alter table core.refunds drop constraint refunds_currency_fkey",
        "alter table core.refunds drop constraint refunds_currency_fkey; "
        "alter table core.refunds add constraint refunds_currency_fkey "
        "foreign key (currency) references core.currencies not valid",
    ],
    "no trigger is disabled": [
        "alter table ledger.entries disable trigger append_only",
        "alter table core.refunds disable trigger all",
    ],
}


def test_every_invariant_has_a_fault_here() -> None:
    assert {invariant.name for invariant in INVARIANTS} == set(FAULTS)


def test_all_invariants_hold_for_live_traffic(oltp: psycopg.Connection) -> None:
    busy_day(oltp)
    results = check()
    assert [result.name for result in results] == [invariant.name for invariant in INVARIANTS]
    assert [result for result in results if not result.passed] == []


def test_all_invariants_hold_for_an_empty_store(oltp: psycopg.Connection) -> None:
    assert oltp.execute("select count(*) from core.charges").fetchone() == (0,)
    assert all(result.passed for result in check())


@pytest.mark.parametrize("invariant", INVARIANTS, ids=lambda invariant: invariant.name)
def test_an_invariant_fails_when_its_fault_is_planted(oltp: psycopg.Connection, invariant: Invariant) -> None:
    busy_day(oltp)
    for fault in FAULTS[invariant.name]:
        with oltp.transaction(force_rollback=True):
            oltp.execute("set local session_replication_role = replica")
            oltp.execute(fault.encode())
            (result,) = ask(oltp, [invariant])
            assert not result.passed, fault
            assert result.detail.startswith("broken ")
    assert ask(oltp, [invariant])[0].passed
