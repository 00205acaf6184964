"""What could not be taken: in quarantine as everything else that is refused, and on a topic of its own, by key."""

import json
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa

from ingestion.cdc.assembly import Stranger
from ingestion.cdc.batches import LogBatch
from ingestion.cdc.envelope import TENANT, Message
from ingestion.contracts import entities
from ingestion.landing import LandingReport, Staged, landing
from ingestion.quarantine import list_quarantine
from payments.vault.cards import redact, redact_record

STREAM = "stream"
"""The source whose contract describes messages."""
FOREIGN = "foreign_message"


class DeadLetter(NamedTuple):
    """A record that could not be taken: its key, why, and its text, card digits removed."""

    key: str
    rule: str
    reason: str
    record: str
    position: str | None

    def message(self, partitions: int) -> Message:
        """Return it as a message, the record as its value."""
        headers: list[tuple[str, str | bytes | None]] = [("rule", self.rule), ("reason", self.reason)]
        if self.position is not None:
            headers.append(("position", self.position))
        return Message(zlib.crc32(self.key.encode()) % partitions, self.key, self.record, headers)


def refused_letters(batch: LogBatch, report: LandingReport) -> Iterator[DeadLetter]:
    """Return what the landing writer refused of a batch; a position is that of the last change of its key."""
    if not any(counts.quarantined for counts in report.entities):
        return
    last: dict[str, dict[tuple[str | None, ...], str | None]] = {}
    for refused in list_quarantine(report.batch_id):
        entity = entities(refused.source)[refused.entity]
        if entity.name not in last:
            changes = batch.changes[entity.name]
            columns = [changes[name].to_pylist() for name in (*entity.key, "_position")]
            last[entity.name] = {tuple(key): position for *key, position in zip(*columns, strict=True)}
        record = json.loads(refused.record)
        key = tuple(record.get(name) for name in entity.key)
        text = json.dumps(key, separators=(",", ":"), ensure_ascii=False)
        tenant = record.get(TENANT) if TENANT in entity.key else text
        name = f"{tenant}|{entity.name}|{text}"
        yield DeadLetter(name, refused.rule, refused.reason, refused.record, last[entity.name].get(key))


def land_strangers(strangers: Sequence[Stranger]) -> list[DeadLetter]:
    """Put messages that are no envelope into quarantine, and return them as dead letters."""
    letters = [
        DeadLetter(
            redact(stranger.key.decode(errors="replace")),
            FOREIGN,
            redact(stranger.reason),
            redact_record(stranger.value.decode(errors="replace")),
            None,
        )
        for stranger in strangers
    ]
    (entity,) = entities(STREAM).values()
    staged = pa.table(
        {
            "_ordinal": pa.array(range(len(letters)), pa.int64()),
            "message_key": [letter.key for letter in letters],
            "message": [letter.record for letter in letters],
            "_rule": [letter.rule for letter in letters],
            "_reason": [letter.reason for letter in letters],
            "_record": [letter.record for letter in letters],
        }
    )
    with landing(STREAM, "messages", origin="topic payments.changes") as batch:
        batch.con.register("strangers", staged)
        batch.land(Staged(entity, "strangers"))
        batch.commit()
    return letters
