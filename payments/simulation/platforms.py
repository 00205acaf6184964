"""Marketplaces: a few merchants who are platforms for others, take a fee of their charges and send them funds."""

import numpy as np

from payments.simulation.arrays import Ints
from payments.simulation.population import Merchants
from payments.simulation.world import CATEGORIES

_PLATFORMS = 3
_SMALLEST_GROUP = 4
_BASIS_POINTS = 500


def platforms_of(merchants: Merchants) -> Ints:
    """Return the platform that each merchant is connected to, -1 for most; both have the same currency."""
    platform = np.full(len(merchants.money), -1, np.int64)
    captures_later = np.array([entry.captures_later for entry in CATEGORIES])[merchants.category]
    sizes = np.bincount(merchants.money)
    for money in np.argsort(-sizes, kind="stable")[:_PLATFORMS].tolist():
        group = np.flatnonzero((merchants.money == money) & (merchants.status == 0) & ~captures_later)
        if len(group) >= _SMALLEST_GROUP:
            # Merchants come by size: the second largest, and a third of the smaller half.
            platform[group[len(group) // 2 :: 3]] = group[1]
    return platform


def application_fees(amount: Ints, fee: Ints, platform: Ints) -> Ints:
    """Return what platforms take of payments: a share rounded down, and at most what the processing fee leaves."""
    share = np.minimum(amount * _BASIS_POINTS // 10_000, amount - fee)
    fees: Ints = np.where(platform >= 0, share, 0)
    return fees
