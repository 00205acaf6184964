"""What must hold of a raw zone, whatever failed: judged from its files and the store's tables alone.

Nothing of the code under test is asked but the contract: which tables land, with which columns and keys.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
from psycopg import sql

from ingestion.contracts import Entity, entities
from ingestion.oltp import table_of
from tests.faults.workload import Event

_RENAMED = {"is_valid": "is_usable"}
"""The names that columns of the contract get in some seeds."""
Key = tuple[str | None, ...]
State = tuple[str | None, ...] | None
"""The values of a row as texts in the order of its columns; None when it is gone."""

History = list[tuple[State, bool]]
"""The states of a key in the order in which they were committed, and whether the log need not tell them."""


@dataclass(frozen=True)
class Version:
    """A landed row: the state of its key from a position on; ``is_logged`` unless a snapshot found it."""

    position: str
    key: Key
    state: State
    is_logged: bool


@dataclass
class Expected:
    """What was committed: the changes, and which of them the log need not tell, because it was lost on purpose."""

    events: list[Event] = field(default_factory=list)
    excused: set[int] = field(default_factory=set)
    """Places in ``events``."""


@dataclass(frozen=True)
class Zone:
    """A raw zone as its records say: the last checkpoint (none is empty) and the commits after it."""

    root: Path
    checkpoint: dict[str, Any]
    commits: list[dict[str, Any]]

    def files(self, folder: str) -> list[Path]:
        """Return the files of a folder (``data/oltp/charges``)."""
        names = [file["name"] for file in self.checkpoint.get("files", {}).get(folder, [])]
        for commit in self.commits:
            for part in commit["entities"]:
                for kind, files in (("data", "files"), ("quarantine", "quarantine_files")):
                    if folder == f"{kind}/{commit['source']}/{part['entity']}":
                        names += part[files]
        return [self.root / name for name in names]

    def batches(self) -> list[dict[str, Any]]:
        """Return what each batch counted, an entity at a time, also of the batches that were merged."""
        merged = [row for path in self.files("data/platform/batches") for row in pq.read_table(path).to_pylist()]
        counts = ("read", "accepted", "unchanged", "quarantined")
        return [
            *({name: row[f"{name}_count"] for name in counts} | {"entity": row["entity"]} for row in merged),
            *(part for commit in self.commits for part in commit["entities"]),
        ]


def read_zone(raw: Path) -> Zone:
    """Return what the records of a raw zone say."""
    checkpoints = sorted((raw / "checkpoints").glob("[0-9]*.json"))
    checkpoint = json.loads(checkpoints[-1].read_bytes()) if checkpoints else {"sequence": 0}
    first = f"{checkpoint['sequence'] + 1:012d}.json"
    records = [path for path in sorted((raw / "commits").glob("[0-9]*.json")) if path.name >= first]
    return Zone(raw, checkpoint, [json.loads(path.read_bytes()) for path in records])


def reached(raw: Path) -> int:
    """Return the place of the log up to which it has landed; 0 when nothing has."""
    try:
        zone = read_zone(raw)
    except FileNotFoundError:  # a checkpoint replaced a record meanwhile
        return 0
    known = sorted((*zone.checkpoint.get("told", ()), *zone.commits), key=lambda commit: commit["sequence"])
    return int(known[-1]["parameters"]["lsn"]) if known else 0


def violations(
    connection: psycopg.Connection, raw: Path, expected: Expected, may_be_quarantined: Collection[str] = ()
) -> list[str]:
    """Return everything that is lost, doubled, out of order or wrong; at most some of each kind, in words."""
    zone = read_zone(raw)
    found = [*_miscounted(zone, may_be_quarantined)]
    committed = _committed(expected)
    for entity in entities("oltp").values():
        versions = _landed(zone, entity)
        found += [*_repeated(entity, versions), *_differing(connection, entity, versions)]
        found += _astray(entity, versions, committed.get(entity.name, {}))
    return found


def _miscounted(zone: Zone, may_be_quarantined: Collection[str]) -> Iterator[str]:
    for part in zone.batches():
        if part["read"] != part["accepted"] + part["unchanged"] + part["quarantined"]:
            yield f"{part['entity']}: the counts of a batch do not add up: {part}"
        if part["quarantined"] and part["entity"] not in may_be_quarantined:
            refused = [
                row
                for path in zone.files(f"quarantine/oltp/{part['entity']}")
                for row in pq.read_table(path).to_pylist()
            ]
            yield f"{part['entity']}: {part['quarantined']} records in quarantine, {str(refused[:1])[:400]}"


def _landed(zone: Zone, entity: Entity) -> list[Version]:
    rows = [row for path in zone.files(f"data/oltp/{entity.name}") for row in pq.read_table(path).to_pylist()]
    versions = [
        Version(
            row["_position"],
            _texts(entity, row, entity.key),
            None if row["_op"] == "d" else _texts(entity, row, entity.column_names),
            row["_transaction_id"] is not None,
        )
        for row in rows
    ]
    return sorted(versions, key=lambda version: version.position)


def _repeated(entity: Entity, versions: Sequence[Version]) -> list[str]:
    repeated = [one.position for one, other in pairwise(versions) if one.position == other.position]
    return [f"{entity.name}: {len(repeated)} positions landed twice, {repeated[0]} first"] if repeated else []


def _differing(connection: psycopg.Connection, entity: Entity, versions: Sequence[Version]) -> list[str]:
    """Compare the latest state of each key with the table."""
    query = sql.SQL("select to_jsonb(t)::text from {} as t").format(sql.Identifier(*table_of(entity)))
    stored: dict[Key, State] = {}
    # Of a column that was dropped, rows keep what they had until they change.
    names = entity.column_names
    for (text,) in connection.execute(query):
        row = json.loads(text, parse_float=Decimal)
        names = [name for name in entity.column_names if name in row or _RENAMED.get(name) in row]
        stored[_texts(entity, row, entity.key)] = _texts(entity, row, names)
    places = [entity.column_names.index(name) for name in names]
    latest = {
        version.key: None if version.state is None else tuple(version.state[place] for place in places)
        for version in versions
    }
    landed = {key: state for key, state in latest.items() if state is not None}
    return [
        *(f"{entity.name} {key}: lost" for key in _some(stored.keys() - landed.keys())),
        *(f"{entity.name} {key}: landed, but not in the table" for key in _some(landed.keys() - stored.keys())),
        *(
            f"{entity.name} {key}: landed as {_apart(names, landed[key], stored[key])}"
            for key in _some({key for key in stored.keys() & landed.keys() if stored[key] != landed[key]})
        ),
    ]


def _astray(
    entity: Entity, versions: Sequence[Version], committed: Mapping[Key, list[tuple[State, bool]]]
) -> list[str]:
    """Compare what landed of each key with what was committed: every version once and in order."""
    landed: dict[Key, list[Version]] = defaultdict(list)
    for version in versions:
        landed[version.key].append(version)
    wrong: list[str] = []
    for key in _some(landed.keys() | committed.keys(), count=10**9):
        if len(wrong) == _SHOWN:
            break
        history = committed.get(key, [])
        logged = [version.state for version in landed[key] if version.is_logged]
        if not is_told(logged, history):
            wrong.append(
                f"{entity.name} {key}: committed {_short(entity, [state for state, _ in history])}, "
                f"of it excused {[place for place, (_, is_excused) in enumerate(history) if is_excused]}, "
                f"but the log landed {_short(entity, logged)}"[:2_000]
            )
        states = [state for state, _ in history]
        unknown = [v for v in landed[key] if not v.is_logged and v.state is not None and v.state not in states]
        if unknown:
            wrong.append(f"{entity.name} {key}: a snapshot landed {_short(entity, [v.state for v in unknown])}")
    return wrong


def is_told(logged: Sequence[State], history: History) -> bool:
    """Say whether a log tells a history: each state once and in order, but for those that are excused."""
    places = {0}  # how much of the history may be told by now
    for state in logged:
        told = set()
        for place in places:
            at = place
            while at < len(history):
                if history[at][0] == state:
                    told.add(at + 1)
                if not history[at][1]:
                    break
                at += 1
        places = told
    return any(all(is_excused for _, is_excused in history[place:]) for place in places)


def _committed(expected: Expected) -> dict[str, dict[Key, History]]:
    """Return the states of each key of each entity, in order, and whether each is excused."""
    found: dict[str, dict[Key, History]] = defaultdict(lambda: defaultdict(list))
    contracts = entities("oltp")
    for place, event in enumerate(expected.events):
        entity, of_entity = contracts[event.entity], found[event.entity]
        is_excused = place in expected.excused
        before = None if event.before is None else _texts(entity, event.before, entity.key)
        after = None if event.after is None else _texts(entity, event.after, entity.key)
        if before is None and after is None:
            for states in of_entity.values():
                if states and states[-1][0] is not None:
                    states.append((None, is_excused))
        if before is not None and before != after:
            of_entity[before].append((None, is_excused))
        if after is not None and event.after is not None:
            of_entity[after].append((_texts(entity, event.after, entity.column_names), is_excused))
    return found


def _texts(entity: Entity, row: Mapping[str, Any], names: Sequence[str]) -> tuple[str | None, ...]:
    types = {column.name: column.type for column in entity.columns}
    return tuple(_text(types[name], row.get(name, row.get(_RENAMED.get(name, name)))) for name in names)


def _text(type_name: str, value: Any) -> str | None:
    if value is None:
        return None
    if type_name == "timestamptz":
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return moment.astimezone(UTC).isoformat()
    if type_name.startswith("numeric"):
        return f"{Decimal(str(value)).normalize():f}"
    return str(value)


_SHOWN = 3


def _some(keys: Any, count: int = _SHOWN) -> list[Key]:
    return sorted(keys, key=str)[:count]


def _apart(names: Sequence[str], landed: State, stored: State) -> str:
    assert landed is not None
    assert stored is not None
    pairs = zip(names, landed, stored, strict=True)
    return ", ".join(f"{name} {str(one)[:40]!r}, not {str(other)[:40]!r}" for name, one, other in pairs if one != other)


def _short(entity: Entity, states: Sequence[State]) -> str:
    """Return states in as few words as tell them apart: the columns that change."""
    there = [state for state in states if state is not None]
    changing = [at for at in range(len(entity.column_names)) if len({state[at] for state in there}) > 1]
    texts = (
        "gone" if state is None else "/".join(str(state[at])[:12] for at in changing) or "made" for state in states
    )
    return "[" + ", ".join(texts) + "]"
