"""The balance transactions of a history: every movement of a merchant's balance, with the parts of its fee."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from payments.simulation.arrays import Ints
from payments.simulation.postings import SPACES

# In the order in which movements of the same moment follow from each other.
TYPES = (
    "charge",
    "application_fee",
    "refund",
    "refund_failure",
    "dispute",
    "dispute_reversal",
    "topup",
    "adjustment",
    "transfer",
    "transfer_in",
    "conversion_out",
    "conversion_in",
    "payout",
    "payout_failure",
    "reversal",
)
FEES = ("processing_fee", "application_fee", "dispute_fee", "conversion_fee")


@dataclass(frozen=True)
class Movements:
    """Movements of one type, signed from the merchant's view; fees are the parts that are taken off the amount."""

    type: str
    space: str
    merchant: Ints
    money: Ints
    source: Ints
    amount: Ints
    created: Ints
    available: Ints
    fees: Mapping[str, Ints] = field(default_factory=dict)

    @property
    def net(self) -> Ints:
        """What the balance changes by."""
        net = self.amount
        for part in self.fees.values():
            net = net - part
        return net


@dataclass(frozen=True)
class BalanceTransactions:
    """All movements in order of time, and the parts of their fees (`part_of` is a place among the movements)."""

    type: Ints
    space: Ints
    merchant: Ints
    money: Ints
    source: Ints
    amount: Ints
    fee: Ints
    created: Ints
    available: Ints
    part_of: Ints
    part_type: Ints
    part_amount: Ints


def move_all(groups: Sequence[Movements]) -> BalanceTransactions:
    """Put movements in order of time."""
    sizes = [len(group.amount) for group in groups]
    firsts = np.concatenate([[0], np.cumsum(sizes)]).tolist()
    kind = np.repeat([TYPES.index(group.type) for group in groups], sizes)
    space = np.repeat([SPACES.index(group.space) for group in groups], sizes)
    source = np.concatenate([group.source for group in groups])
    amount = np.concatenate([group.amount for group in groups])
    created = np.concatenate([group.created for group in groups])
    in_time = np.lexsort((source, kind, created))
    rank = np.empty_like(in_time)
    rank[in_time] = np.arange(len(in_time))

    parts = [
        (first + np.flatnonzero(part > 0), FEES.index(name), part[part > 0])
        for first, group in zip(firsts, groups, strict=False)
        for name, part in group.fees.items()
    ]
    part_of = rank[np.concatenate([rows for rows, _, _ in parts])]
    part_type = np.concatenate([np.full(len(rows), code, np.int64) for rows, code, _ in parts])
    part_amount = np.concatenate([part for _, _, part in parts])
    order = np.lexsort((part_type, part_of))
    fee = np.concatenate([group.amount - group.net for group in groups])
    return BalanceTransactions(
        type=kind[in_time],
        space=space[in_time],
        merchant=np.concatenate([group.merchant for group in groups])[in_time],
        money=np.concatenate([group.money for group in groups])[in_time],
        source=source[in_time],
        amount=amount[in_time],
        fee=fee[in_time],
        created=created[in_time],
        available=np.concatenate([group.available for group in groups])[in_time],
        part_of=part_of[order],
        part_type=part_type[order],
        part_amount=part_amount[order],
    )
