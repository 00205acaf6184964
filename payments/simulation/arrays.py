"""The array types of the simulation and the few vector operations that numpy leaves to its users."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Values: TypeAlias = "pa.Array[Any]"  # Arrow arrays have type parameters for type checkers only


def pick(generator: np.random.Generator, weights: Floats, size: int) -> Ints:
    """Draw `size` indices with probabilities proportional to `weights` (non-negative, not all zero)."""
    edges = np.cumsum(weights)
    drawn = np.searchsorted(edges, generator.random(size) * edges[-1], side="right")
    picked: Ints = np.minimum(drawn, len(weights) - 1).astype(np.int64)
    return picked


def pick_within(generator: np.random.Generator, weights: Floats, starts: Ints, ends: Ints) -> Ints:
    """Draw for each pair (start, end) one index of `weights[start:end]`, proportional to the weights; start < end."""
    edges = np.concatenate([[0.0], np.cumsum(weights)])
    low, high = edges[starts], edges[ends]
    drawn = np.searchsorted(edges, low + generator.random(len(starts)) * (high - low), side="right") - 1
    picked: Ints = np.clip(drawn, starts, ends - 1).astype(np.int64)
    return picked


def offsets(counts: Ints) -> Ints:
    """Return where each group starts when groups of these sizes lie one after another (one entry more than counts)."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def expand(counts: Ints) -> tuple[Ints, Ints]:
    """Return, for groups of these sizes, the group of each member and its place within the group."""
    owner = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    return owner, np.arange(len(owner), dtype=np.int64) - offsets(counts)[owner]


def running_totals(groups: Ints, values: Ints) -> tuple[Ints, Ints]:
    """Return for each row its number within its group (from 1) and the sum of its group's values up to and with it.

    The order within a group is the order of the rows.
    """
    order = np.argsort(groups, kind="stable")
    sorted_groups, sums = groups[order], np.cumsum(values[order])
    is_first = np.concatenate([[True], sorted_groups[1:] != sorted_groups[:-1]]) if len(groups) else np.zeros(0, bool)
    first = np.maximum.accumulate(np.where(is_first, np.arange(len(groups)), 0))
    before_group = np.concatenate([[0], sums])[first]
    number, total = np.empty_like(groups), np.empty_like(values)
    number[order] = np.arange(len(groups)) - first + 1
    total[order] = sums - before_group
    return number, total
