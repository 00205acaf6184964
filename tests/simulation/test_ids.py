"""Identifiers: Stripe's shape, never twice, in the order of their counters."""

import re

import numpy as np

from payments.simulation.ids import IdSpace, uuids


def test_ids_have_stripes_shape_and_grow_with_the_counter() -> None:
    ids = list(IdSpace(7, "ch").strings(np.arange(50_000)))
    assert all(re.fullmatch("ch_[0-9A-Za-z]{24}", one) for one in ids)
    assert len(set(ids)) == len(ids)
    assert ids == sorted(ids, key=str.encode)


def test_ids_of_far_counters_keep_their_width_and_order() -> None:
    low, high = IdSpace(7, "ch").strings(np.array([0, 2**31 - 1]))
    assert len(low) == len(high) == 27
    assert low < high


def test_ids_depend_on_seed_kind_and_counter_only() -> None:
    counters = np.arange(100)
    again = IdSpace(7, "ch").arrow(counters[::-1]).to_pylist()[::-1]
    assert list(IdSpace(7, "ch").strings(counters)) == again
    tails = {IdSpace(seed, kind).strings(np.array([5]))[0][-17:] for seed in range(20) for kind in ("ch", "pi")}
    assert len(tails) == 40


def test_ids_are_never_mistaken_for_card_numbers() -> None:
    ids = IdSpace(1, "evt").strings(np.arange(50_000))
    assert not [one for one in ids if re.search("[0-9]{13,}", one)]


def test_uuids_are_of_version_4_and_deterministic() -> None:
    first, again, other = uuids(3, "subject", 1_000), uuids(3, "subject", 1_000), uuids(4, "subject", 1_000)
    assert first == again
    assert not set(first) & set(other)
    assert len(set(first)) == 1_000
    assert {one.version for one in first} == {4}
