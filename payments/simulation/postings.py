"""The double-entry ledger of a history, computed at once: postings in order of time, running balances of each account.

Every merchant has a book of its own. What is posted, and with which legs, is said by the modules that draw the objects;
the legs of each kind are those of the operational store's own functions (`ledger.post` and its callers).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from payments.simulation.arrays import Flags, Ints, running_totals

# In the order in which postings of the same moment follow from each other.
KINDS = (
    "invoice",
    "charge",
    "application_fee",
    "application_fee_in",
    "invoice_settled",
    "settlement",
    "refund",
    "refund_settled",
    "refund_failed",
    "dispute",
    "dispute_won",
    "dispute_lost",
    "topup",
    "adjustment",
    "transfer",
    "transfer_in",
    "fx",
    "payout",
    "payout_paid",
    "payout_failed",
    "reversal",
)
CODES = (
    "card_receivable",
    "bank",
    "invoice_receivable",
    "invoice_clearing",
    "merchant_pending",
    "merchant_available",
    "fee_revenue",
    "refund_clearing",
    "dispute_clearing",
    "payout_in_transit",
    "transfer_clearing",
    "fx_liquidity",
    "suspense",
)
DEBIT_NORMAL = ("card_receivable", "bank", "invoice_receivable")
PROTECTED = (
    "card_receivable",
    "invoice_receivable",
    "invoice_clearing",
    "merchant_pending",
    "refund_clearing",
    "dispute_clearing",
    "payout_in_transit",
)
# Whose identifiers a source is one of. A day is a settlement, which is named by currency and day.
SPACES = ("ch", "re", "dp", "po", "tr", "tu", "fx", "in", "cn", "adj", "day", "lt")
_DEBIT_NORMAL_CODES = [CODES.index(code) for code in DEBIT_NORMAL]


@dataclass(frozen=True)
class Leg:
    """A leg of every posting of a kind: account code and side, and currency and amount (0 for no leg) of each."""

    code: str
    is_debit: bool
    money: Ints
    amount: Ints


@dataclass(frozen=True)
class Postings:
    """Postings of one kind: whose book, the counter of the source within its space, when, and the legs of all of them.

    A reversal has the place of the reversed posting among all postings as its source.
    """

    kind: str
    space: str
    merchant: Ints
    source: Ints
    posted: Ints
    legs: Sequence[Leg]


@dataclass(frozen=True)
class Holds:
    """One row an authorized amount: reserved between card_receivable and merchant_pending of its book.

    `posted` is the captured part of the amount; `status` counts in HOLD_STATUSES; `resolved` is -1 while it is pending.
    """

    merchant: Ints
    money: Ints
    charge: Ints
    amount: Ints
    posted: Ints
    status: Ints
    created: Ints
    resolved: Ints


HOLD_STATUSES = ("pending", "posted", "voided", "expired")


@dataclass(frozen=True)
class Ledger:
    """Accounts, transactions and entries; an account is of a merchant, a code and a currency."""

    account_merchant: Ints
    account_code: Ints
    account_money: Ints
    account_debits: Ints
    account_credits: Ints
    account_debits_pending: Ints
    account_credits_pending: Ints
    account_entries: Ints
    account_created: Ints
    transaction_merchant: Ints
    transaction_kind: Ints
    transaction_space: Ints
    transaction_source: Ints
    transaction_posted: Ints
    entry_transaction: Ints
    entry_no: Ints
    entry_account: Ints
    entry_is_debit: Flags
    entry_amount: Ints
    entry_account_no: Ints
    entry_balance: Ints


def _account_key(merchant: Ints, code: int, money: Ints) -> Ints:
    return (merchant * len(CODES) + code) * 64 + money


def post_all(groups: Sequence[Postings], holds: Holds) -> Ledger:
    """Post a whole history: transactions come in order of time, and a leg of nothing is left out."""
    sizes = [len(group.posted) for group in groups]
    firsts = np.concatenate([[0], np.cumsum(sizes)]).tolist()
    merchant = np.concatenate([group.merchant for group in groups])
    source = np.concatenate([group.source for group in groups])
    posted = np.concatenate([group.posted for group in groups])
    kind = np.repeat([KINDS.index(group.kind) for group in groups], sizes)
    space = np.repeat([SPACES.index(group.space) for group in groups], sizes)
    in_time = np.lexsort((source, kind, posted))
    rank = np.empty_like(in_time)
    rank[in_time] = np.arange(len(in_time))
    names_posting = space == SPACES.index("lt")
    source = np.where(names_posting, rank[np.where(names_posting, source, 0)], source)

    numbered = zip(firsts, groups, strict=False)
    legs = [(first, group, no, leg) for first, group in numbered for no, leg in enumerate(group.legs)]
    transaction = np.concatenate([rank[first : first + len(group.posted)] for first, group, _, _ in legs])
    number = np.concatenate([np.full(len(group.posted), no, np.int64) for _, group, no, _ in legs])
    is_debit = np.concatenate([np.full(len(group.posted), leg.is_debit) for _, group, _, leg in legs])
    amount = np.concatenate([leg.amount for _, _, _, leg in legs])
    key = np.concatenate([_account_key(group.merchant, CODES.index(leg.code), leg.money) for _, group, _, leg in legs])
    order = np.argsort(transaction * 8 + number, kind="stable")
    order = order[amount[order] > 0]
    transaction, is_debit, amount, key = transaction[order], is_debit[order], amount[order], key[order]

    receivable = _account_key(holds.merchant, CODES.index("card_receivable"), holds.money)
    pending = _account_key(holds.merchant, CODES.index("merchant_pending"), holds.money)
    accounts, account = np.unique(np.concatenate([key, receivable, pending]), return_inverse=True)
    created = np.full(len(accounts), np.iinfo(np.int64).max)
    np.minimum.at(created, account, np.concatenate([posted[in_time][transaction], holds.created, holds.created]))
    held_debit, held_credit = account[len(key) : len(key) + len(holds.amount)], account[len(key) + len(holds.amount) :]
    account = account[: len(key)]
    is_pending = holds.status == HOLD_STATUSES.index("pending")
    code = accounts // 64 % len(CODES)
    is_increase = is_debit == np.isin(code, _DEBIT_NORMAL_CODES)[account]
    account_no, balance = running_totals(account, np.where(is_increase, amount, -amount))
    entry_no, _ = running_totals(transaction, amount)

    def total(places: Ints, values: Ints) -> Ints:
        sums = np.zeros(len(accounts), np.int64)
        np.add.at(sums, places, values)
        return sums

    return Ledger(
        account_merchant=accounts // 64 // len(CODES),
        account_code=code,
        account_money=accounts % 64,
        account_debits=total(account, np.where(is_debit, amount, 0)),
        account_credits=total(account, np.where(is_debit, 0, amount)),
        account_debits_pending=total(held_debit, np.where(is_pending, holds.amount, 0)),
        account_credits_pending=total(held_credit, np.where(is_pending, holds.amount, 0)),
        account_entries=np.bincount(account, minlength=len(accounts)),
        account_created=created,
        transaction_merchant=merchant[in_time],
        transaction_kind=kind[in_time],
        transaction_space=space[in_time],
        transaction_source=source[in_time],
        transaction_posted=posted[in_time],
        entry_transaction=transaction,
        entry_no=entry_no,
        entry_account=account,
        entry_is_debit=is_debit,
        entry_amount=amount,
        entry_account_no=account_no,
        entry_balance=balance,
    )
