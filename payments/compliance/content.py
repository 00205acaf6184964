"""What a relation holds, told by any engine in the same words: rows, an order-free checksum, money per currency.

The text of a row is that of its columns that are not null, each as its name and its value; a moment is written as the
microseconds of its epoch. A row counts with the first 60 bits of the md5 of that text, a relation with the sum of its
rows: the order of rows does not matter, and a row that stands twice counts twice.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ingestion.contracts import Column, Entity

Engine = Literal["duckdb", "postgres"]


@dataclass(frozen=True)
class Content:
    """What a relation holds: ``money`` is minor units by column and currency, without what is zero."""

    rows: int = 0
    checksum: int = 0
    money: dict[tuple[str, str], int] = field(default_factory=dict)


def content_query(entity: Entity, relation: str, engine: Engine) -> str:
    """Return SQL that tells the content of a relation (its text after ``from``) with the columns of an entity.

    One row a currency: its name in each column of currencies, rows, sum of the hashes, sum of each amount.
    """
    currencies = [f'"{name}"' for name in _currencies(entity)]
    amounts = [f'sum("{amount}")' for amount, _ in _amounts(entity)]
    measures = ", ".join([*currencies, "count(*)", f"sum({row_hash(entity, engine)})", *amounts])
    groups = f" group by {', '.join(currencies)}" if currencies else ""
    return f"select {measures} from {relation}{groups}"


def content_of(entity: Entity, rows: Iterable[Sequence[Any]]) -> Content:
    """Return the content that the rows of :func:`content_query` tell."""
    currencies, amounts = _currencies(entity), _amounts(entity)
    width = len(currencies)
    count, checksum = 0, 0
    money: dict[tuple[str, str], int] = {}
    for row in rows:
        named = dict(zip(currencies, row[:width], strict=True))
        count += int(row[width])
        checksum += int(row[width + 1] or 0)
        for (amount, currency), total in zip(amounts, row[width + 2 :], strict=True):
            if total:
                place = (amount, str(named[currency]))
                money[place] = money.get(place, 0) + int(total)
    return Content(count, checksum, {place: total for place, total in sorted(money.items()) if total})


def key_text(entity: Entity, engine: Engine) -> str:
    """Return SQL for the key of a row as one text."""
    parts = ", ".join(_canonical(entity, name, engine) for name in entity.key)
    return f"concat_ws('/', {parts})"


def row_hash(entity: Entity, engine: Engine) -> str:
    """Return SQL for the number with which a row counts."""
    parts = ", ".join(f"'{column.name}' || chr(31) || {_text(column, engine)} || chr(30)" for column in entity.columns)
    if engine == "postgres":
        return f"('x' || left(md5(concat({parts})), 15))::bit(60)::bigint"
    return f"cast('0x' || left(md5(concat({parts})), 15) as bigint)"


def _canonical(entity: Entity, name: str, engine: Engine) -> str:
    return next(_text(column, engine) for column in entity.columns if column.name == name)


def _text(column: Column, engine: Engine) -> str:
    value = f'"{column.name}"'
    if column.type == "timestamptz":
        # extract() gives a numeric: no digit is lost.
        value = f"epoch_us({value})" if engine == "duckdb" else f"(extract(epoch from {value}) * 1000000)::bigint"
    elif column.type.startswith("numeric"):  # the scale of the contract, whatever that of the table
        value = f"cast({value} as {column.type})"
    return f"cast({value} as {'varchar' if engine == 'duckdb' else 'text'})"


def _amounts(entity: Entity) -> list[tuple[str, str]]:
    """Return the columns of money, each with the column of its currency; amounts without one are in the checksum."""
    names = entity.column_names
    pairs = [
        (name, next((currency for currency in _candidates(name) if currency in names), None))
        for name in names
        if name.endswith("_minor")
    ]
    return [(amount, currency) for amount, currency in pairs if currency is not None]


def _candidates(amount: str) -> tuple[str, ...]:
    side, _, _ = amount.partition("_")
    return "currency", f"{side}_currency", "default_currency"


def _currencies(entity: Entity) -> list[str]:
    return sorted({currency for _, currency in _amounts(entity)})
