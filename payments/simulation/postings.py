"""The double-entry ledger of a history, computed at once: postings in order of time, running balances of each account.

The legs of each kind of posting are those of the operational store's own function (`ledger.post` and its callers).
"""

from dataclasses import dataclass

import numpy as np

from payments.simulation.aftermath import LOST, REFUNDED, WON, Disputes, Refunds, Sales, settlement_moment
from payments.simulation.arrays import Flags, Ints, running_totals
from payments.simulation.plan import DAY, Plan

KINDS = ("charge", "settlement", "refund", "dispute", "dispute_won", "dispute_lost")
CODES = ("card_receivable", "bank", "fee_revenue", "dispute_clearing", "merchant_pending", "merchant_available")
RECEIVABLE, BANK, FEES, CLEARING, PENDING_BALANCE, AVAILABLE = range(len(CODES))
DEBIT_NORMAL = (RECEIVABLE, BANK)
_PLATFORM = 0


@dataclass(frozen=True)
class Settled:
    """One row a settlement: the charges of one merchant, currency and day (days since 1970)."""

    merchant: Ints
    money: Ints
    day: Ints
    amount: Ints
    net: Ints


@dataclass(frozen=True)
class Ledger:
    """Accounts, transactions, entries. The owner of an account is 0 for the platform, else the merchant plus 1."""

    account_owner: Ints
    account_code: Ints
    account_money: Ints
    account_debits: Ints
    account_credits: Ints
    account_entries: Ints
    account_created: Ints
    transaction_kind: Ints
    transaction_source: Ints
    transaction_posted: Ints
    entry_transaction: Ints
    entry_no: Ints
    entry_account: Ints
    entry_is_debit: Flags
    entry_amount: Ints
    entry_account_no: Ints
    entry_balance: Ints


def settle(plan: Plan, sales: Sales) -> Settled:
    """Group paid charges into the settlements that fall within the history, ordered by day, merchant and currency."""
    ripe = sales.is_paid & (settlement_moment(sales.created) < plan.end_moment)
    key = np.stack([sales.created[ripe] // DAY, sales.merchant[ripe], sales.money[ripe]], axis=1)
    groups, place = np.unique(key, axis=0, return_inverse=True) if len(key) else (key, np.zeros(0, np.int64))
    totals, nets = np.zeros(len(groups), np.int64), np.zeros(len(groups), np.int64)
    np.add.at(totals, place, sales.amount[ripe])
    np.add.at(nets, place, (sales.amount - sales.fee)[ripe])
    return Settled(groups[:, 1], groups[:, 2], groups[:, 0], totals, nets)


@dataclass(frozen=True)
class _Legs:
    """Legs of postings of one kind; `no` is the place within the posting."""

    posting: Ints
    no: Ints
    owner: Ints
    code: Ints
    money: Ints
    is_debit: Flags
    amount: Ints


def _legs(first: int, money: Ints, parts: list[tuple[Ints | int, int, bool, Ints]]) -> list[_Legs]:
    count = len(money)
    posting = first + np.arange(count)
    return [
        _Legs(
            posting,
            np.full(count, number),
            np.broadcast_to(np.asarray(owner, dtype=np.int64), (count,)),
            np.full(count, code),
            money,
            np.full(count, is_debit),
            amount,
        )
        for number, (owner, code, is_debit, amount) in enumerate(parts)
    ]


def post_all(sales: Sales, settled: Settled, refunds: Refunds, disputes: Disputes) -> Ledger:
    """Post a whole history; the source of a posting is a position in the table of its kind."""
    merchant, money, amount = sales.merchant, sales.money, sales.amount
    paid = np.flatnonzero(sales.is_paid)
    done = np.flatnonzero(refunds.status == REFUNDED)
    won, lost = np.flatnonzero(disputes.status == WON), np.flatnonzero(disputes.status == LOST)
    sources = [paid, np.arange(len(settled.day)), done, np.arange(len(disputes.charge)), won, lost]
    times = [
        sales.created[paid],
        settlement_moment(settled.day * DAY),
        refunds.created[done],
        disputes.created,
        disputes.closed[won],
        disputes.closed[lost],
    ]
    firsts = np.concatenate([[0], np.cumsum([len(source) for source in sources])]).tolist()
    refund_owner = merchant[refunds.charge[done]] + 1
    dispute_owner, dispute_money = merchant[disputes.charge] + 1, money[disputes.charge]
    paid_owner, net = merchant[paid] + 1, amount[paid] - sales.fee[paid]
    legs = [
        *_legs(
            firsts[0],
            money[paid],
            [
                (_PLATFORM, RECEIVABLE, True, amount[paid]),
                (paid_owner, PENDING_BALANCE, False, net),
                (_PLATFORM, FEES, False, sales.fee[paid]),
            ],
        ),
        *_legs(
            firsts[1],
            settled.money,
            [
                (settled.merchant + 1, PENDING_BALANCE, True, settled.net),
                (settled.merchant + 1, AVAILABLE, False, settled.net),
                (_PLATFORM, BANK, True, settled.amount),
                (_PLATFORM, RECEIVABLE, False, settled.amount),
            ],
        ),
        *_legs(
            firsts[2],
            money[refunds.charge[done]],
            [(refund_owner, AVAILABLE, True, refunds.amount[done]), (_PLATFORM, BANK, False, refunds.amount[done])],
        ),
        *_legs(
            firsts[3],
            dispute_money,
            [
                (dispute_owner, AVAILABLE, True, disputes.amount + disputes.fee),
                (_PLATFORM, CLEARING, False, disputes.amount),
                (_PLATFORM, FEES, False, disputes.fee),
            ],
        ),
        *_legs(
            firsts[4],
            dispute_money[won],
            [
                (_PLATFORM, CLEARING, True, disputes.amount[won]),
                (dispute_owner[won], AVAILABLE, False, disputes.amount[won]),
            ],
        ),
        *_legs(
            firsts[5],
            dispute_money[lost],
            [(_PLATFORM, CLEARING, True, disputes.amount[lost]), (_PLATFORM, BANK, False, disputes.amount[lost])],
        ),
    ]
    kind = np.repeat(np.arange(len(KINDS)), [len(source) for source in sources])
    return _ledger(kind, np.concatenate(sources), np.concatenate(times), legs)


def _ledger(kind: Ints, source: Ints, posted: Ints, legs: list[_Legs]) -> Ledger:
    in_time = np.lexsort((source, kind, posted))
    rank = np.empty_like(in_time)
    rank[in_time] = np.arange(len(in_time))

    columns = {
        name: np.concatenate([getattr(leg, name) for leg in legs])
        for name in ("posting", "no", "owner", "code", "money", "is_debit", "amount")
    }
    transaction = rank[columns["posting"]]
    order = np.lexsort((columns["no"], transaction))
    order = order[columns["amount"][order] > 0]  # a leg of nothing is not written
    transaction = transaction[order]
    is_debit, amount = columns["is_debit"][order], columns["amount"][order]
    key = (columns["owner"][order] * len(CODES) + columns["code"][order]) * 64 + columns["money"][order]
    accounts, first_entry, account = np.unique(key, return_index=True, return_inverse=True)
    code = accounts // 64 % len(CODES)
    is_increase = is_debit == np.isin(code, DEBIT_NORMAL)[account]
    account_no, balance = running_totals(account, np.where(is_increase, amount, -amount))
    entry_no, _ = running_totals(transaction, amount)
    debits, credits = np.zeros(len(accounts), np.int64), np.zeros(len(accounts), np.int64)
    np.add.at(debits, account, np.where(is_debit, amount, 0))
    np.add.at(credits, account, np.where(is_debit, 0, amount))
    return Ledger(
        account_owner=accounts // 64 // len(CODES),
        account_code=code,
        account_money=accounts % 64,
        account_debits=debits,
        account_credits=credits,
        account_entries=np.bincount(account, minlength=len(accounts)),
        account_created=posted[in_time][transaction[first_entry]],
        transaction_kind=kind[in_time],
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
