"""Identifiers in the shape of Stripe's (`ch_` and 24 base62 characters), made from a seed and a counter.

The first seven characters grow with the counter, which keeps index pages and key ranges in order of time; the other
seventeen are hashed. Two counters never share an identifier.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from payments.simulation.arrays import Ints, Values

_ALPHABET = np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", dtype=np.uint8)
_ORDERED, _HASHED = 7, 17
_FIRST = 62**6 * 11  # the ordered part begins with a letter
_STRIDE = 1021  # steps between neighbours vary below this width


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the finalizer of splitmix64 (Steele, Lea, Flood 2014: Fast splittable pseudorandom number generators)."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def hashes(seed: int, kind: str, counters: Ints, lane: int = 0) -> npt.NDArray[np.uint64]:
    """Return 64 well-mixed bits for each counter, of their own for each seed, kind and lane."""
    # The seed is mixed twice: once only, it would cancel out against the counter of the same number.
    salt = _mix(_mix(np.array([seed % 2**64], dtype=np.uint64)) ^ np.uint64(crc32(f"{kind}:{lane}".encode()) << 16))
    return _mix(_mix(counters.astype(np.uint64)) ^ salt)


@dataclass(frozen=True)
class IdSpace:
    """The identifiers of one kind (`ch`, `pi`, ...) under one seed."""

    seed: int
    prefix: str

    def matrix(self, counters: Ints) -> npt.NDArray[np.uint8]:
        """Return one row of ASCII codes for each counter (below 2**31)."""
        lanes = [hashes(self.seed, self.prefix, counters, lane) for lane in range(3)]
        ordered = np.uint64(_FIRST) + counters.astype(np.uint64) * np.uint64(_STRIDE) + lanes[2] % np.uint64(_STRIDE)
        lead = np.frombuffer(f"{self.prefix}_".encode(), dtype=np.uint8)
        codes = np.empty((len(counters), len(lead) + _ORDERED + _HASHED), dtype=np.uint8)
        codes[:, : len(lead)] = lead
        for place in range(_ORDERED):
            codes[:, len(lead) + _ORDERED - 1 - place] = _ALPHABET[ordered % np.uint64(62)]
            ordered //= np.uint64(62)
        rest = lanes[0].copy()
        for place in range(_HASHED):
            if place == 9:
                rest = lanes[1].copy()
            codes[:, len(lead) + _ORDERED + place] = _ALPHABET[rest % np.uint64(62)]
            rest //= np.uint64(62)
        return codes

    def draws(self, counters: Ints) -> npt.NDArray[np.uint64]:
        """Return 64 well-mixed bits for each counter: a draw that depends on nothing else."""
        return hashes(self.seed, f"{self.prefix} draw", counters)

    def arrow(self, counters: Ints) -> Values:
        """Return the identifiers as an Arrow string array, without a Python object for each."""
        codes = np.ascontiguousarray(self.matrix(counters))
        ends = np.arange(len(counters) + 1, dtype=np.int32) * np.int32(codes.shape[1])
        return pa.StringArray.from_buffers(len(counters), pa.py_buffer(ends.tobytes()), pa.py_buffer(codes.tobytes()))

    def strings(self, counters: Ints) -> Sequence[str]:
        """Return the identifiers as Python strings."""
        codes = self.matrix(counters)
        width = codes.shape[1]
        text = codes.tobytes().decode("ascii")
        return [text[start : start + width] for start in range(0, len(text), width)]


def uuids(seed: int, kind: str, count: int) -> list[UUID]:
    """Return `count` UUIDs of version 4 shape, hashed from the seed and a counter."""
    counters = np.arange(count, dtype=np.int64)
    high, low = (hashes(seed, kind, counters, lane).tolist() for lane in (0, 1))
    return [UUID(int=(int(first) << 64) | int(second), version=4) for first, second in zip(high, low, strict=True)]
