"""Many messages of rows, decoded at once, give what a plain decoder of one message after the other gives."""

import json
import struct
from datetime import UTC, datetime
from random import Random

import numpy as np
import pytest

from ingestion.cdc.batches import ChangeTables
from ingestion.cdc.changes import Transactions, change_table, positions
from ingestion.cdc.pgoutput import Begin, MalformedMessageError, Relation, RelationColumn
from ingestion.cdc.rows import decode_rows
from ingestion.cdc.schemas import CatalogColumn, renamed_since, view_of
from ingestion.contracts import Column, Entity
from ingestion.raw_zone import Position

ENTITY = Entity(
    "oltp",
    "things",
    ("tenant", "thing_id"),
    (Column("tenant", "text"), Column("thing_id", "text"), Column("note", "text"), Column("size", "bigint")),
)
TYPES = {"size": 20}
COLUMNS = ("tenant", "extra", "thing_id", "note", "size")
RELATION = Relation(
    7,
    "core",
    "things",
    "d",
    tuple(RelationColumn(name, name in ENTITY.key, TYPES.get(name, 25)) for name in COLUMNS),
)
VIEW = view_of(ENTITY, {column.name: column.type_oid for column in RELATION.columns}, {})
BEGIN = Begin(0x0A_0000_0000, datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC), 99)
Value = str | None


def tuple_of(values: list[Value]) -> bytes:
    cells = []
    for value in values:
        if value in (None, "<kept>"):
            cells.append(b"n" if value is None else b"u")
        else:
            text = str(value).encode()
            cells.append(b"t" + struct.pack(">I", len(text)) + text)
    return struct.pack(">H", len(values)) + b"".join(cells)


def message(lsn: int, body: bytes) -> bytes:
    return b"w" + struct.pack(">QQQ", lsn, 0, 0) + body


def changed(messages: list[bytes], lsns: list[int]) -> list[dict[str, Value]]:
    (rows,) = decode_rows(messages, {7: RELATION})
    assert rows.lsns.tolist() == lsns
    turns = np.zeros(len(messages), np.int64)
    for place in range(1, len(lsns)):
        turns[place] = turns[place - 1] + 1 if lsns[place] == lsns[place - 1] else 0
    found: list[dict[str, Value]] = change_table(ENTITY, VIEW, rows, turns, Transactions(3, [BEGIN], [0])).to_pylist()
    return found


def test_random_rows_decode_as_they_were_written() -> None:
    draw = Random(11)  # noqa: S311 (a repeatable draw)
    texts: list[Value] = [None, "", "é€𝄞", "x" * 300, "0", "a\nb"]
    messages, lsns = list[bytes](), list[int]()
    expected: list[tuple[dict[str, Value], str, Position, list[str] | None]] = []
    lsn = 0x0900_0000
    for number in range(2_000):
        lsn += draw.choice((0, 8))
        key = ["acct_1", f"thing_{number}"]
        note, size = draw.choice(texts), draw.choice((None, "-5", "12"))
        row = [key[0], "never lands", key[1], note, size]
        old = [key[0], None, f"old_{number}", None, None]
        same = [key[0], None, key[1], None, None]
        kind = draw.choice(("insert", "update", "move", "delete", "full", "kept"))
        kept = [*row[:3], "<kept>", row[4]]
        whole = [*row[:3], "was here", row[4]]
        body = {
            "insert": b"I" + struct.pack(">I", 7) + b"N" + tuple_of(row),
            "update": b"U" + struct.pack(">I", 7) + b"N" + tuple_of(row),
            "kept": b"U" + struct.pack(">I", 7) + b"N" + tuple_of(kept),
            "move": b"U" + struct.pack(">I", 7) + b"K" + tuple_of(old) + b"N" + tuple_of(row),
            "delete": b"D" + struct.pack(">I", 7) + b"K" + tuple_of(same),
            "full": b"U" + struct.pack(">I", 7) + b"O" + tuple_of(whole) + b"N" + tuple_of(kept),
        }[kind]
        messages.append(message(lsn, body))
        lsns.append(lsn)
        turn = 2 * sum(1 for other in lsns[-1000:] if other == lsn) - 2
        values: dict[str, Value] = {"tenant": key[0], "thing_id": key[1], "note": note, "size": size}
        at = Position(3, BEGIN.commit_lsn, lsn, turn)
        match kind:
            case "move":
                gone = {"tenant": key[0], "thing_id": f"old_{number}", "note": None, "size": None}
                expected.append((gone, "d", at, None))
                expected.append((values, "c", Position(3, BEGIN.commit_lsn, lsn, turn + 1), None))
            case "delete":
                expected.append(({**values, "note": None, "size": None}, "d", at, None))
            case "kept":
                expected.append(({**values, "note": None}, "u", at, ["note"]))
            case "full":
                expected.append(({**values, "note": "was here"}, "u", at, None))
            case _:
                expected.append((values, kind[0].replace("i", "c"), at, None))
    found = [
        (
            {name: row[name] for name in ENTITY.column_names},
            row["_op"],
            Position.parse(str(row["_position"])),
            json.loads(row["_unchanged_columns"]) if row["_unchanged_columns"] else None,
        )
        for row in changed(messages, lsns)
    ]
    assert found == expected
    assert len({position for _, _, position, _ in found}) == len(found)


def test_what_the_contract_does_not_name_stays_in_the_store() -> None:
    body = b"I" + struct.pack(">I", 7) + b"N" + tuple_of(["acct_1", "a secret", "thing_1", None, None])
    (row,) = changed([message(1, body)], [1])
    assert "a secret" not in json.dumps(row)


@pytest.mark.parametrize(
    "body",
    [
        b"I" + struct.pack(">I", 7) + b"N" + tuple_of(["a", "b"]),
        b"I" + struct.pack(">I", 7) + b"N" + tuple_of(["a", "b", "c", "d", "1"])[:-1],
        b"I" + struct.pack(">I", 7) + b"N" + tuple_of(["a", "b", "c", "d", "1"]) + b"x",
        b"I" + struct.pack(">I", 7) + b"N" + tuple_of(["a", "b", "c", "d", None]).replace(b"n", b"b"),
        b"I" + struct.pack(">I", 8) + b"N" + tuple_of(["a", "b", "c", "d", "1"]),
        b"U" + struct.pack(">I", 7) + b"K" + tuple_of(["a", None, "c", None, None]),
    ],
    ids=["few columns", "cut", "too long", "a binary value", "an unknown table", "no new row"],
)
def test_a_malformed_message_is_told(body: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        decode_rows([message(1, body)], {7: RELATION})


def test_positions_are_written_as_positions_are() -> None:
    epochs, lsns = 2, np.array([1, 2**40 + 5, 2**62], np.int64)
    written = positions(epochs, lsns, lsns[::-1], np.array([0, 7, 2**31], np.int64)).to_pylist()
    places = zip(lsns.tolist(), lsns[::-1].tolist(), (0, 7, 2**31), strict=True)
    assert written == [str(Position(epochs, *place)) for place in places]


def test_tables_larger_than_the_memory_wait_in_files(tmp_path) -> None:  # type: ignore[no-untyped-def]
    tables = ChangeTables(tmp_path, memory_bytes=50_000)
    body = b"I" + struct.pack(">I", 7) + b"N"
    for number in range(100):
        messages = [message(number, body + tuple_of(["a", "", f"{number}-{row}", "x" * 50, "1"])) for row in range(20)]
        (rows,) = decode_rows(messages, {7: RELATION})
        piece = change_table(ENTITY, VIEW, rows, np.zeros(20, np.int64), Transactions(1, [BEGIN], [0]))
        tables.add("things", piece)
    assert tables.rows == 2_000
    taken = tables.take()["things"]
    assert taken["thing_id"].to_pylist() == [f"{number}-{row}" for number in range(100) for row in range(20)]
    assert list(tmp_path.iterdir()) == [], "the files have no names any more"
    assert tables.take() == {}


def test_a_table_is_read_as_far_as_it_fits() -> None:
    oids = {"tenant": 25, "thing_id": 25, "note": 25, "size": 23}
    assert view_of(ENTITY, oids, {}).sources == {name: name for name in ENTITY.column_names}
    assert view_of(ENTITY, {**oids, "size": 20, "more": 25}, {}).stopped is None, "wider, and a column more"
    without = {name: oid for name, oid in oids.items() if name != "note"}
    assert view_of(ENTITY, without, {}).sources["note"] is None
    assert view_of(ENTITY, {**without, "remark": 25}, {"note": "remark"}).sources["note"] == "remark"
    assert view_of(ENTITY, {"tenant": 25, "note": 25, "size": 20}, {}).stopped == "the table has no column thing_id"
    assert view_of(ENTITY, {**oids, "size": 25}, {}).stopped == "column size is no bigint any more"
    columns = [CatalogColumn("tenant", 1, 25), CatalogColumn("remark", 3, 25)]
    assert renamed_since({"tenant": 1, "note": 3, "gone": 9}, columns) == {"note": "remark"}
