"""``payments check oltp``: green after live traffic of every kind, and red, with its name, for each planted fault."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from payments.systems.oltp.check import GUARDED_BY_TRIGGERS, INVARIANTS, ask, check
from payments.systems.oltp.connection import connect
from payments.systems.oltp.invariants import balances, catalogue, ledger, payments
from payments.systems.oltp.invariants.invariant import Invariant
from tests.conftest import empty_oltp
from tests.systems.shop import busy_market

# What each invariant is for: statements that plant a fault behind the triggers' backs, as only a superuser may.
FAULTS = {
    ledger.LEDGER_BALANCES: [
        "update ledger.entries set amount_minor = amount_minor + 1 where entry_no = 1 and ledger_transaction_id = "
        "(select min(ledger_transaction_id) from ledger.transactions where kind = 'charge')",
        "delete from ledger.entries where ledger_account_id = 'acct_shop:refund_clearing:EUR' and account_entry_no = 1",
        "delete from ledger.entries where (merchant_id, ledger_transaction_id) in "
        "(select merchant_id, ledger_transaction_id from ledger.transactions where kind = 'topup')",
        "insert into ledger.transactions (merchant_id, ledger_transaction_id, kind, source_id, posted_at) "
        "values ('acct_shop', 'lt_empty', 'charge', 'ch_none', now())",
        "update ledger.transactions set posted_at = posted_at + interval '1 second' where kind = 'fx'",
    ],
    ledger.BOOKS_SUM_TO_ZERO: [
        "update ledger.accounts set debits_posted_minor = debits_posted_minor + 1 where code = 'bank'",
        "update ledger.accounts set credits_pending_minor = credits_pending_minor + 1 where code = 'merchant_pending'",
    ],
    ledger.PENDING_IS_HELD: [
        "update ledger.accounts set debits_pending_minor = debits_pending_minor + 1 where code = 'card_receivable'; "
        "update ledger.accounts set credits_pending_minor = credits_pending_minor + 1 where code = 'merchant_pending'",
        "update ledger.holds set amount_minor = amount_minor + 1 where status = 'pending'",
    ],
    ledger.ACCOUNTS_FOLLOW_ENTRIES: [
        "update ledger.accounts set debits_posted_minor = debits_posted_minor + 1 where code = 'bank'",
        "update ledger.accounts set entry_count = entry_count + 1",
        "insert into ledger.accounts (merchant_id, ledger_account_id, code, currency, normal_side, is_protected, "
        "debits_posted_minor) values ('acct_shop', 'acct_shop:bank:USD', 'bank', 'USD', 'D', false, 1)",
        "update ledger.entries set account_entry_no = account_entry_no + 1000 where account_entry_no = 2",
        "delete from ledger.entries where account_entry_no = 1",
        "update ledger.entries set balance_after_minor = balance_after_minor + 1 where account_entry_no = 3",
        # The youngest posting, cut off whole, is missed by the totals of its accounts.
        "delete from ledger.entries where ledger_transaction_id = (select ledger_transaction_id "
        "from ledger.transactions order by recorded_at desc limit 1)",
    ],
    ledger.PROTECTED_ACCOUNTS: [
        "alter table ledger.accounts drop constraint never_below_zero; update ledger.accounts "
        "set credits_posted_minor = debits_posted_minor + 1 where code = 'card_receivable'",
        "alter table ledger.accounts drop constraint never_below_zero; "
        "update ledger.accounts set is_protected = false, credits_pending_minor = debits_posted_minor + 1 "
        "where code = 'card_receivable'",
        "update ledger.entries set balance_after_minor = -1 where ledger_account_id like '%payout_in_transit%'",
    ],
    catalogue.GUARDS_STAND: [
        "alter table ledger.entries_default disable trigger no_truncate",
        "drop trigger no_change on ledger.entries",
        "drop trigger no_truncate on core.charges_p2",
        "drop trigger balanced on ledger.entries_default",
        "drop trigger versioned on core.charges; create trigger versioned before update on core.charges "
        "for each row execute function rules.require_legal_transition('charges')",
    ],
    catalogue.TRIGGERS_ENABLED: [
        "alter table ledger.entries disable trigger no_change",
        "alter table core.refunds disable trigger all",
    ],
    ledger.CHAIN_VERIFIES: [
        "update ledger.entries set amount_minor = amount_minor + 1 "
        "where ledger_account_id in ('acct_shop:suspense:EUR', 'acct_shop:payout_in_transit:EUR')",
        "update ledger.transactions set source_id = 'adj_other' where kind = 'adjustment'",
        "update ledger.seals set content_hash = sha256('x')",
        "update ledger.seals set transaction_count = transaction_count + 1",
        "delete from ledger.entries where (merchant_id, ledger_transaction_id) in "
        "(select merchant_id, ledger_transaction_id from ledger.transactions where kind = 'adjustment'); "
        "delete from ledger.transactions where kind = 'adjustment'",
    ],
    ledger.CHAIN_IS_WHOLE: [
        # The tail cut off, of entries and of seals: what is left is a whole chain, and yet it is missed.
        "delete from ledger.entries; delete from ledger.transactions; delete from ledger.seals",
        "delete from ops.audit_log where operation = 'seal'",
        "update ledger.seals set seal_hash = sha256('x')",
    ],
    ledger.CLOSED_PERIODS: [
        "insert into ledger.closed_periods (period, closed_at) values ('2026-03-01', '2026-04-01')",
    ],
    ledger.POSTED_ONCE: [
        "alter table ledger.transactions drop constraint transactions_merchant_id_kind_source_id_key; "
        "insert into ledger.transactions select merchant_id, ledger_transaction_id || 'x', kind, source_id, posted_at "
        "from ledger.transactions where kind = 'payout'",
    ],
    ledger.AUTHORIZATIONS: [
        "update ledger.holds set posted_minor = posted_minor + 1 where status = 'posted'",
        "update ledger.holds set status = 'voided', resolved_at = now() where status = 'pending'",
        "delete from ledger.holds where status = 'expired'",
    ],
    ledger.REVERSALS: [
        "update ledger.entries set amount_minor = amount_minor - 1 where (merchant_id, ledger_transaction_id) in "
        "(select merchant_id, ledger_transaction_id from ledger.transactions where kind = 'reversal')",
        "update ledger.transactions set source_id = source_id || 'x' where kind = 'reversal'",
        "alter table ledger.transactions drop constraint transactions_merchant_id_kind_source_id_key; "
        "insert into ledger.transactions select merchant_id, ledger_transaction_id || 'x', kind, source_id, posted_at "
        "from ledger.transactions where kind = 'reversal'",
    ],
    payments.REFUNDS_WITHIN_CAPTURED: [
        "update core.refunds set amount_minor = amount_minor + 100000",
        "update core.refunds set status = 'failed' where status = 'succeeded'",
        "update core.refunds set currency = 'USD'",
        "update core.charges set amount_refunded_minor = 0",
        "alter table core.charges drop constraint captured_within_amount; "
        "update core.charges set amount_captured_minor = amount_minor + 1 where status = 'succeeded'",
    ],
    payments.DISPUTES_WITHIN_CAPTURED: [
        "update core.disputes set amount_minor = 1000000",
        "update core.disputes set currency = 'USD'",
        "update core.charges set is_disputed = false",
        "update core.charges set is_disputed = true",
    ],
    payments.RETURNED_WITHIN_CAPTURED: [
        "update core.disputes set amount_minor = 7000 where charge_id = 'ch_7'; "
        "update core.charges set amount_refunded_minor = 1 where charge_id = 'ch_7'",
    ],
    payments.INTENTS: [
        "update core.payment_intents set amount_received_minor = 0",
        "update core.payment_intents set currency = 'USD'",
        "update core.payment_intents set status = 'processing' where status = 'succeeded'",
        "update core.payment_intents set amount_capturable_minor = 1 where status = 'requires_capture'",
        # A second success on one intent.
        "drop index core.one_success_per_intent; "
        "update core.charges set payment_intent_id = (select min(payment_intent_id) from core.charges)",
    ],
    payments.FEES_ADD_UP: [
        "update core.balance_transaction_fees set amount_minor = amount_minor + 1 where type = 'dispute_fee'",
        "delete from core.balance_transaction_fees where type = 'application_fee'",
        "update core.balance_transaction_fees set currency = 'USD'",
        "alter table core.balance_transactions drop constraint net_is_amount_less_fee; "
        "update core.balance_transactions set net_minor = net_minor + 1 where type = 'payout'",
    ],
    payments.PAYOUTS: [
        "update core.payouts set amount_minor = amount_minor + 1 where is_automatic",
        "delete from core.payout_balance_transactions where balance_transaction_id = "
        "(select min(balance_transaction_id) from core.payout_balance_transactions)",
        "update core.payouts set is_automatic = true",
    ],
    payments.VERSIONS_GROW: [
        "update core.charges set version = version - 1 where version > 1",
        "update core.payouts set version = version + 1",
        "update core.invoices set version = 1",
        "update core.merchants set version = 7",
    ],
    payments.STATUS_CHANGES: [
        "update core.payouts set status = 'in_transit' where payout_id = 'po_paid'",
        "update core.disputes set status = 'needs_response', closed_at = null where status = 'won'",
        "update ops.audit_log set changes = jsonb_set(changes, '{status}', '[\"succeeded\", \"pending\"]') "
        "where table_name = 'core.refunds' and changes ? 'status'",
    ],
    payments.INVOICE_LINES: [
        "update core.invoice_lines set amount_minor = amount_minor + 1",
        "delete from core.invoice_lines where invoice_id = 'in_open'",
        "update core.invoice_lines set currency = 'USD'",
        "update core.invoices set subtotal_minor = subtotal_minor + 1, total_minor = total_minor + 1 "
        "where status = 'open'",
    ],
    payments.INVOICES_SETTLED: [
        "update core.invoices set amount_credited_minor = amount_credited_minor + 1 where status = 'open'",
        "update core.credit_notes set amount_minor = amount_minor + 1 where invoice_id = 'in_open'",
        "update core.invoices set payment_intent_id = null where status = 'paid'",
    ],
    payments.CONVERSIONS: [
        "update core.currency_conversions set to_amount_minor = to_amount_minor + 1",
        "update core.currency_conversions set rate = rate * 2",
    ],
    balances.BALANCE_TRANSACTIONS: [
        "delete from core.balance_transactions where type = 'dispute_reversal'",
        "update core.balance_transactions set source_id = source_id || 'x' where type = 'charge'",
        "update core.balance_transactions set amount_minor = amount_minor + 1, net_minor = net_minor + 1 "
        "where type = 'refund'",
        "update core.balance_transactions set fee_minor = fee_minor + 1, net_minor = net_minor - 1 "
        "where type = 'dispute'",
        "update core.balance_transactions set currency = 'USD'",
        "delete from core.balance_transactions where type = 'reversal'",
        "insert into core.balance_transactions values "
        "('acct_shop', 'txn_x', 'topup', 'tu_x', 5, 0, 5, 'EUR', now(), now())",
    ],
    balances.POSTINGS: [
        "delete from ledger.entries where posted_at = (select min(posted_at) from ledger.entries)",
        "update ledger.transactions set source_id = source_id || 'x' where kind = 'settlement'",
        "update ledger.entries set side = case side when 'D' then 'C' else 'D' end where entry_no < 3",
        "update core.balance_transactions set fee_minor = fee_minor + 1, net_minor = net_minor - 1 "
        "where type = 'charge'",
        "update core.disputes set status = 'lost', closed_at = now() where status = 'needs_response'",
        # A posting that nothing asked for: balanced, numbered, but stray.
        "insert into core.transfers values ('acct_shop', 'tr_x', 'acct_market', 5, 0, 'EUR', 1, now(), now())",
        "update ledger.transactions set kind = 'adjustment' where kind = 'topup'",
        "update ledger.entries set ledger_account_id = 'acct_shop:suspense:EUR' "
        "where ledger_account_id = 'acct_shop:refund_clearing:EUR'",
        "update core.topups set status = 'succeeded'",
        "update core.transfers set amount_reversed_minor = 0",
        "delete from core.credit_notes where refund_id is null",
        "update core.adjustments set status = 'approved' where status = 'rejected'",
        "update core.application_fees set amount_minor = amount_minor + 1",
    ],
    balances.SETTLEMENTS: [
        "update core.settlements set amount_minor = amount_minor + 1",
        "update core.settlements set net_minor = net_minor - 1",
        "update core.balance_transactions set created_at = created_at + interval '1 day' where type = 'charge'",
    ],
    balances.CLEARING: [
        "update core.payouts set status = 'paid' where status = 'pending'",
        "update core.refunds set status = 'succeeded' where status = 'pending'",
        "update core.disputes set status = 'lost', closed_at = now() where status = 'needs_response'",
        "update core.invoices set status = 'void' where status = 'open'",
        "delete from core.settlements",
        "update ledger.accounts set debits_posted_minor = debits_posted_minor + 1 where code = 'refund_clearing'",
        "update ledger.accounts set debits_posted_minor = debits_posted_minor + 1 "
        "where ledger_account_id = 'acct_market:transfer_clearing:EUR'",
    ],
    balances.MERCHANT_TOTALS: [
        "update ledger.accounts set credits_posted_minor = credits_posted_minor + 1 where code = 'merchant_available'",
        "update core.balance_transactions set amount_minor = amount_minor + 1, net_minor = net_minor + 1",
        "delete from core.balance_transactions",
    ],
    catalogue.CONSTRAINTS_VALIDATED: [
        "alter table core.refunds drop constraint refunds_currency_fkey",
        "alter table core.refunds drop constraint refunds_currency_fkey; "
        "alter table core.refunds add constraint refunds_currency_fkey "
        "foreign key (currency) references core.currencies not enforced",
        "alter table core.reviews drop constraint reviews_merchant_id_charge_id_fkey; "
        "alter table core.reviews add constraint reviews_merchant_id_charge_id_fkey "
        "foreign key (merchant_id, charge_id) references core.charges on delete cascade",
    ],
    catalogue.TENANTS_ARE_APART: [
        "alter table core.charges disable row level security",
        "drop policy of_merchant on ledger.entries",
    ],
}


@pytest.fixture(scope="module")
def market(servers: object) -> Iterator[psycopg.Connection]:
    """A connection to a store in which everything happened; each test leaves it as it was."""
    with connect(autocommit=True) as connection:
        empty_oltp(connection)
        busy_market(connection)
        yield connection


def test_every_invariant_has_a_fault_here() -> None:
    assert set(FAULTS) == set(INVARIANTS)
    assert len({invariant.name for invariant in INVARIANTS}) == len(INVARIANTS)
    assert set(GUARDED_BY_TRIGGERS) < set(INVARIANTS)


def test_all_invariants_hold_after_everything_happened(market: psycopg.Connection) -> None:
    results = check()
    assert [result.name for result in results] == [invariant.name for invariant in INVARIANTS]
    assert [result for result in results if not result.passed] == []
    (definition,) = market.execute(
        "select pg_get_constraintdef(c.oid) from pg_constraint as c "
        "where conname = 'transactions_kind_check' and conrelid = 'ledger.transactions'::regclass"
    ).fetchall()
    posted = {kind for (kind,) in market.execute("select distinct kind from ledger.transactions")}
    assert posted == set(re.findall(r"'(\w+)'", definition[0])), "everything means every kind of posting"


def test_each_invariant_says_how_many_rows_it_was_asked_of(market: psycopg.Connection) -> None:
    details = {result.name: result.detail for result in check()}
    count = market.execute("select count(*) from ledger.entries").fetchone()
    assert count is not None
    assert details[ledger.ACCOUNTS_FOLLOW_ENTRIES.name] == f"holds for {count[0]:,} rows"
    # Only months that were closed are not there to be asked: nothing is closed in this store.
    assert [name for name, detail in details.items() if detail == "holds for 0 rows"] == [ledger.CLOSED_PERIODS.name]


@pytest.mark.parametrize("invariant", INVARIANTS, ids=lambda invariant: invariant.name)
def test_an_invariant_fails_when_its_fault_is_planted(market: psycopg.Connection, invariant: Invariant) -> None:
    assert ask(market, [invariant])[0].passed
    for fault in FAULTS[invariant]:
        with market.transaction(force_rollback=True):
            market.execute("set local session_replication_role = replica")
            market.execute(fault.encode())
            (result,) = ask(market, [invariant])
            assert not result.passed, fault
            assert result.detail.startswith("broken ")
    assert ask(market, [invariant])[0].passed


def test_a_tail_that_is_cut_is_missed_though_what_is_left_is_whole(market: psycopg.Connection) -> None:
    with market.transaction(force_rollback=True):
        market.execute("set local session_replication_role = replica")
        market.execute("delete from ledger.entries; delete from ledger.transactions; delete from ledger.seals")
        results = ask(market, [ledger.CHAIN_VERIFIES, ledger.CHAIN_IS_WHOLE])
        assert [result.passed for result in results] == [True, False]


def test_all_invariants_hold_for_an_empty_store(oltp: psycopg.Connection) -> None:
    assert oltp.execute("select count(*) from core.charges").fetchone() == (0,)
    assert all(result.passed for result in check())


def test_the_command_ends_with_1_and_the_name_of_what_is_broken(oltp: psycopg.Connection) -> None:
    command = [str(Path(sys.executable).with_name("payments")), "check", "oltp"]
    oltp.execute("alter table ledger.seals disable trigger no_truncate")
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    finally:
        oltp.execute("alter table ledger.seals enable trigger no_truncate")
    assert done.returncode == 1
    broken = [line for line in done.stdout.splitlines() if "NO" in line]
    assert len(broken) == 2
    assert "L4" in broken[0]
    assert "no_truncate on ledger.seals" in broken[0]
