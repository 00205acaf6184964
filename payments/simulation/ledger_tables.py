"""The books as tables of the operational store."""

import numpy as np
import pyarrow as pa

from payments.simulation.authorizations import HELD_FOR
from payments.simulation.columns import CURRENCIES, Column, Table, given, keys, labels, moments, numbers, taken
from payments.simulation.names import Names
from payments.simulation.postings import CODES, DEBIT_NORMAL, HOLD_STATUSES, KINDS, PROTECTED


def ledger_tables(names: Names) -> list[Table]:
    """Return the tables of the ledger."""
    return [_entries(names), _transactions(names), _accounts(names), _holds(names)]


def _accounts(names: Names) -> Table:
    ledger = names.business.ledger
    is_debit = np.array([code in DEBIT_NORMAL for code in CODES])[ledger.account_code]
    is_protected = np.array([code in PROTECTED for code in CODES])[ledger.account_code]
    columns: dict[str, Column] = {
        "merchant_id": taken(names.merchant_ids, ledger.account_merchant),
        "ledger_account_id": given(names.account_ids),
        "code": labels(CODES, ledger.account_code),
        "currency": labels(CURRENCIES, ledger.account_money),
        "normal_side": labels(("C", "D"), is_debit.astype(np.int64)),
        "is_protected": numbers(is_protected),
        "debits_posted_minor": numbers(ledger.account_debits),
        "credits_posted_minor": numbers(ledger.account_credits),
        "debits_pending_minor": numbers(ledger.account_debits_pending),
        "credits_pending_minor": numbers(ledger.account_credits_pending),
        "entry_count": numbers(ledger.account_entries),
        "created_at": moments(ledger.account_created),
    }
    return Table("ledger.accounts", len(is_debit), columns)


def _holds(names: Names) -> Table:
    holds, count = names.business.holds, len(names.business.holds.amount)

    def account_ids(code: str) -> Column:
        ids = names.accounts(holds.merchant, pa.repeat(code, count), holds.money)
        return given(ids)

    columns: dict[str, Column] = {
        "merchant_id": taken(names.merchant_ids, holds.merchant),
        "hold_id": keys(names.spaces["hold"], np.arange(count)),
        "source_id": keys(names.spaces["ch"], holds.charge),
        "debit_account_id": account_ids("card_receivable"),
        "credit_account_id": account_ids("merchant_pending"),
        "currency": labels(CURRENCIES, holds.money),
        "amount_minor": numbers(holds.amount),
        "posted_minor": numbers(holds.posted),
        "status": labels(HOLD_STATUSES, holds.status),
        "version": numbers(1 + (holds.resolved >= 0)),
        "created_at": moments(holds.created),
        "expires_at": moments(holds.created + HELD_FOR),
        "resolved_at": moments(holds.resolved),
        "updated_at": moments(np.maximum(holds.created, holds.resolved)),
    }
    return Table("ledger.holds", count, columns)


def _transactions(names: Names) -> Table:
    ledger, count = names.business.ledger, len(names.business.ledger.transaction_kind)
    columns: dict[str, Column] = {
        "merchant_id": taken(names.merchant_ids, ledger.transaction_merchant),
        "ledger_transaction_id": keys(names.spaces["lt"], np.arange(count)),
        "kind": labels(KINDS, ledger.transaction_kind),
        "source_id": names.sources(ledger.transaction_space, ledger.transaction_source),
        "posted_at": moments(ledger.transaction_posted),
    }
    return Table("ledger.transactions", count, columns, names.by_merchant(ledger.transaction_merchant))


def _entries(names: Names) -> Table:
    ledger = names.business.ledger
    merchant = ledger.transaction_merchant[ledger.entry_transaction]
    columns: dict[str, Column] = {
        "merchant_id": taken(names.merchant_ids, merchant),
        "ledger_transaction_id": keys(names.spaces["lt"], ledger.entry_transaction),
        "entry_no": numbers(ledger.entry_no),
        "ledger_account_id": taken(names.account_ids, ledger.entry_account),
        "currency": labels(CURRENCIES, ledger.account_money[ledger.entry_account]),
        "side": labels(("C", "D"), ledger.entry_is_debit.astype(np.int64)),
        "amount_minor": numbers(ledger.entry_amount),
        "account_entry_no": numbers(ledger.entry_account_no),
        "balance_after_minor": numbers(ledger.entry_balance),
        "posted_at": moments(ledger.transaction_posted[ledger.entry_transaction]),
    }
    return Table("ledger.entries", len(merchant), columns, names.by_merchant(merchant))
