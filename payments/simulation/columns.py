"""Tables to write and the columns of them, made slice by slice to keep memory small."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from payments.simulation.arrays import Flags, Ints, Values
from payments.simulation.ids import IdSpace
from payments.simulation.plan import DAY
from payments.simulation.world import MONIES

# What is in a column at these places.
Column = Callable[[Ints], Values]
CURRENCIES = tuple(money.code for money in MONIES)


@dataclass(frozen=True)
class Table:
    """A table to write: its name with schema, its number of rows, and a function for each column.

    Its rows are written in the order of their places, or in that of `order`.
    """

    name: str
    rows: int
    columns: dict[str, Column]
    order: Ints | None = None

    def batch(self, rows: slice) -> pa.RecordBatch:
        """Return a slice of the table, in the order in which it is written."""
        places = np.arange(rows.start, rows.stop) if self.order is None else self.order[rows]
        arrays = [column(places) for column in self.columns.values()]
        return pa.RecordBatch.from_arrays(arrays, names=list(self.columns))


def labels(names: Sequence[str], codes: Ints) -> Column:
    """Name each code; a negative code is null."""
    values = pa.array(names, pa.string())
    return taken(values, codes)


def taken(values: Values, index: Ints) -> Column:
    """Take the value in each place; that in a negative place is null."""
    return lambda rows: values.take(positions(index[rows]))


def given(values: Values) -> Column:
    """The values themselves."""
    return lambda rows: values.take(positions(rows))


def positions(index: Ints) -> pa.Int64Array:
    """Places to take values from; a negative one takes a null."""
    return pa.array(index, pa.int64(), mask=index < 0)


def joined(*parts: Values) -> Values:
    """Join texts with colons, row by row."""
    join: Any = pc.binary_join_element_wise
    joined: Values = join(*parts, ":")
    return joined


def numbers(values: Ints | Flags, is_null: Flags | None = None) -> Column:
    """Numbers and flags, null where said."""
    return lambda rows: pa.array(values[rows], mask=None if is_null is None else is_null[rows])


def moments(values: Ints) -> Column:
    """Moments in microseconds; a negative one is null."""
    kind = pa.timestamp("us", tz="UTC")
    return lambda rows: pa.array(values[rows], pa.int64(), mask=values[rows] < 0).cast(kind)


def dates(moments: Ints) -> Column:
    """The days (UTC) of moments in microseconds."""
    return lambda rows: pa.array((moments[rows] // DAY).astype(np.int32)).cast(pa.date32())


def keys(space: IdSpace, counters: Ints) -> Column:
    """The identifiers of counters; a negative one is null."""
    if not len(counters) or counters.min() >= 0:
        return lambda rows: space.arrow(counters[rows])

    def column(rows: Ints) -> Values:
        chosen = counters[rows]
        known = np.flatnonzero(chosen >= 0)
        place = np.full(len(chosen), -1, np.int64)
        place[known] = np.arange(len(known))
        return space.arrow(chosen[known]).take(positions(place))

    return column


def constant(value: str, count: int) -> Column:
    """One text for all of `count` rows."""
    return given(pa.repeat(value, count))


def hex_bytes(values: Iterable[bytes]) -> Values:
    """Bytes as the server reads them from text."""
    return pa.array([f"\\x{value.hex()}" for value in values], pa.string())


def rank_in_time(moments: Ints) -> Ints:
    """Return the place of each row in the order of time: counters that tell nothing about how the row was drawn."""
    order = np.argsort(moments, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank
