"""The identifiers of everything in a history."""

from functools import cached_property

import numpy as np
import pyarrow as pa

from payments.simulation.arrays import Ints, Values
from payments.simulation.business import Business
from payments.simulation.columns import CURRENCIES, Column, joined, positions, rank_in_time
from payments.simulation.identities import Identities
from payments.simulation.ids import IdSpace
from payments.simulation.postings import CODES, SPACES
from payments.simulation.streams import Streams

_PREFIXES = (
    "acct", "cus", "pm", "pi", "ch", "re", "dp", "txn", "lt", "dev", "hold", "fee", "po", "tr", "tu", "fx", "adj",
    "prod", "price", "co", "sub", "si", "di", "in", "il", "cn", "seti", "cs", "prv", "issfr",
)  # fmt: skip


class Names:
    """The identifiers of a history: of a merchant, customer or payment method by its place, of others by counters."""

    def __init__(self, business: Business) -> None:
        self.business = business
        self.streams = Streams(business.plan.seed)
        self.identities = Identities(self.streams, business.population.subjects)
        self.spaces = {prefix: IdSpace(business.plan.seed, prefix) for prefix in _PREFIXES}

    @cached_property
    def merchant_ids(self) -> Values:
        """The id of each merchant."""
        return self.spaces["acct"].arrow(rank_in_time(self.business.population.merchants.created))

    @cached_property
    def customer_ids(self) -> Values:
        """The id of each customer."""
        return self.spaces["cus"].arrow(rank_in_time(self.business.customer_created))

    @cached_property
    def method_ids(self) -> Values:
        """The id of each payment method."""
        return self.spaces["pm"].arrow(rank_in_time(self.business.method_created))

    def device_ids(self, devices: Ints) -> Values:
        """The ids of these devices, scattered so that neighbours in the plan are none in the store."""
        return self.spaces["dev"].arrow(devices * 0x9E3779B1 % (1 << 31))

    @cached_property
    def account_ids(self) -> Values:
        """The id of each ledger account."""
        ledger = self.business.ledger
        codes = pa.array(CODES).take(positions(ledger.account_code))
        return self.accounts(ledger.account_merchant, codes, ledger.account_money)

    def accounts(self, merchant: Ints, codes: Values, money: Ints) -> Values:
        """The ids of the accounts of these codes in these books and currencies."""
        return joined(self.merchant_ids.take(positions(merchant)), codes, pa.array(CURRENCIES).take(positions(money)))

    def by_merchant(self, merchant: Ints) -> Ints:
        """Return rows, each of the merchant given for it, in the order of the ids of their merchants.

        Whatever is told apart within a merchant by a growing id is written in the order of its primary key then, which
        the server finds sorted already.
        """
        rank = rank_in_time(self.business.population.merchants.created)
        order: Ints = np.argsort(rank[merchant], kind="stable")
        return order

    def sources(self, space: Ints, source: Ints) -> Column:
        """Return the id of each source: of the space that is named for it, or of a settlement."""

        def column(rows: Ints) -> Values:
            spaces, sources = space[rows], source[rows]
            parts, found = [], []
            for code in np.unique(spaces).tolist():
                place = np.flatnonzero(spaces == code)
                name, chosen = SPACES[code], sources[place]
                parts.append(self._settlement_ids(chosen) if name == "day" else self.spaces[name].arrow(chosen))
                found.append(place)
            back = np.argsort(np.concatenate(found), kind="stable")
            return pa.concat_arrays(parts).take(positions(back))

        return column

    def _settlement_ids(self, rows: Ints) -> Values:
        settled = self.business.settled
        day = pa.array(settled.day[rows].astype(np.int32)).cast(pa.date32()).cast(pa.string())
        return joined(pa.array(CURRENCIES).take(positions(settled.money[rows])), day)
