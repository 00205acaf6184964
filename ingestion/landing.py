"""The one landing writer: staged records in, a committed batch of the raw zone out.

A source stages its records as a DuckDB relation, one row a record read, in the order read:

- ``_ordinal bigint``: the place of the record, from 0, unique;
- every column of the entity's contract, as text or as its own type;
- ``_rule text, _reason text``: what the source itself found wrong with the record, else null;
- ``_record text``: the record as text, as it would stand in quarantine (a view computes it for the refused rows only).

The writer checks every record (types, required columns, card numbers), compares its content with the latest state in
the raw zone and writes what is new (``r``), changed (``u``) or gone: deleted (``d``), or expired (``x``) when its
source removed it at the end of its retention, which an entity tells by a column ``expire_at``. What does not fit goes
to quarantine with a rule, a reason and the card digits removed. Nothing is dropped:
``read = accepted + unchanged + quarantined``. A record that stands in quarantine already is counted, not written again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import duckdb

from ingestion.contracts import Column, Entity
from ingestion.erasure import erased_among
from ingestion.raw_zone import BatchFiles, Commit, EntityCommit, Pin, Position, RawZone, parquet, relation, text_literal
from payments.settings import settings
from payments.vault.cards import PREFILTER, find_card_numbers, redact, redact_record

MEMORY_LIMIT = "2GB"
SHORTEST_CARD = 13


@dataclass(frozen=True)
class EntityCounts:
    """What a batch did to one entity."""

    entity: str
    read: int
    accepted: int
    unchanged: int
    quarantined: int
    deleted: int


@dataclass(frozen=True)
class LandingReport:
    """What a committed batch did."""

    source: str
    batch_id: str
    sequence: int
    entities: list[EntityCounts]


@dataclass(frozen=True)
class Staged:
    """The records of one entity, staged in ``relation`` (see the module's description).

    ``is_complete``: the relation holds all that the source has with a key above ``above`` and not above ``up_to`` (null
    is no bound), so what is absent there is gone from the source. ``removed``: the keys of records that are gone
    although the relation is not complete. ``on_request``: the keys of records that somebody asked to remove: these are
    deleted, whenever they would have expired. Bounds and keys are for entities whose key is one column of text.
    ``immutable``: columns in which a record may not differ from what landed before under its key.
    ``replays``: the quarantine ids of the records that are landed again here.
    """

    entity: Entity
    relation: str
    is_complete: bool = False
    above: str | None = None
    up_to: str | None = None
    removed: tuple[str, ...] = ()
    on_request: tuple[str, ...] = ()
    immutable: tuple[str, ...] = ()
    replays: tuple[str, ...] = ()


@dataclass
class Landing:
    """One batch in the making; :func:`landing` opens and commits it."""

    con: duckdb.DuckDBPyConnection
    files: BatchFiles
    source: str
    kind: str
    origin: str
    parameters: dict[str, str]
    source_at: datetime
    """When the source was read; a source with a clock of its own sets it."""
    epoch: int = 0
    source_position: int | None = None
    """Where in the source's own log the batch stands (a WAL position); None where it has none: the landing sequence."""
    _parts: list[EntityCommit] = field(default_factory=list)
    _placed: int = 0

    @property
    def sequence(self) -> int:
        """The landing sequence of this batch."""
        return self.files.sequence

    @property
    def pin(self) -> Pin:
        """The raw zone as this batch found it."""
        return self.files.pin

    @property
    def batch_id(self) -> str:
        """The identifier of this batch."""
        return f"{self.source}-{self.sequence:012d}"

    def land(self, staged: Staged) -> EntityCounts:
        """Check, compare and write the records of one entity aside; :func:`landing` makes them visible."""
        entity = staged.entity
        con = self.con
        self._check(entity, staged.relation)
        con.execute(
            f"create or replace temp table absent as select unnest({_KEY_LIST}) as _key", [list(staged.removed)]
        )
        key = ", ".join(f'"{name}"' for name in entity.key)
        con.execute(f"insert into absent select json_array({key})::varchar from {staged.relation} {_ERASED_ONLY}")
        con.execute(f"create or replace temp table previous as {self._previous(staged)}")
        con.execute(f"create or replace temp table refused as {_REFUSED}")
        con.execute(f"create or replace temp table verdict as {_VERDICT}")
        con.execute(f"create or replace temp table changed as {self._changed(staged)}")
        if self._has_erased():
            blank = ", ".join(f'"{name}" = null' for name in entity.column_names if name not in entity.key)
            erased = f"select json_array({key})::varchar from {staged.relation} {_ERASED_ONLY}"
            con.execute(f"update changed set {blank} where _key in ({erased})")
        if staged.immutable:
            con.execute(f"insert into refused {_forbidden_changes(staged.immutable)}")
            con.execute("delete from verdict where _ordinal in (select _ordinal from refused)")
        accepted, unchanged, deleted = self._count_verdicts()
        unchanged += self._one("select count(*) from erased")
        # What has never landed leaves a file without rows: a view over the files by pattern needs one that matches.
        is_first = not self.pin.files(entity.source, entity.name)
        files = self._write_data(entity) if accepted or deleted or is_first else []
        return self._count(staged, accepted, unchanged, deleted, files)

    def land_log(self, staged: Staged) -> EntityCounts:
        """Check and write the changes of a source's own log as they stand, each at its own position.

        The relation has ``_op`` (c, u or d), ``_before``, ``_unchanged_columns``, ``_position``, ``_changed_at`` and
        ``_transaction_id`` as well; of a deletion only the key counts. The caller gives no change twice.
        """
        entity = staged.entity
        self._check(entity, staged.relation, is_log=True)
        self.con.execute("create or replace temp table absent as select ''::varchar as _key where false")
        self.con.execute(f"create or replace temp table refused as {_UNSOUND}")
        sound = f"{staged.relation} as log anti join refused using (_ordinal)"
        accepted = self._one(f"select count(*) from {sound}")
        deleted = self._one(f"select count(*) from {sound} where {_IS_DELETED}")
        files = self._write_log(staged) if accepted else []
        return self._count(staged, accepted, 0, deleted, files)

    def _check(self, entity: Entity, relation: str, *, is_log: bool = False) -> None:
        """Fill ``erased``, ``checked``, ``screened`` and ``keyed``.

        Records of erased customers: of a log the key alone is left, which lands as a deletion at its position;
        otherwise there is no such record.
        """
        con = self.con
        types = {str(row[0]): str(row[1]).lower() for row in con.execute(f"describe {relation}").fetchall()}
        con.execute(f"create or replace temp table erased as {erased_among(self.pin, entity, relation)}")
        whole = f"not {_IS_DELETED}" if is_log else "true"
        con.execute(f"create or replace temp table checked as {_check_types(entity, relation, types, whole)}")
        if not self._has_erased():
            pass
        elif is_log:
            content = [*(name for name in entity.column_names if name not in entity.key), "_rule", "_reason"]
            blank = ", ".join(f'"{name}" = null' for name in content)
            con.execute(f"update checked set {blank} {_ERASED_ONLY}")
        else:
            con.execute(f"delete from checked {_ERASED_ONLY}")
        self._screen(entity)
        con.execute(f"create or replace temp table keyed as {_key_and_hash(entity)}")

    def _has_erased(self) -> bool:
        return self._one("select count(*) from erased") > 0

    def _count(self, staged: Staged, accepted: int, unchanged: int, deleted: int, files: list[str]) -> EntityCounts:
        """Write what was refused and note what became of every record."""
        entity = staged.entity
        quarantined, quarantine_files, resolved_files = self._write_quarantine(staged)
        read = self._one(f"select count(*) from {staged.relation}")
        if read != accepted + unchanged + quarantined:
            raise AssertionError(f"{entity.name}: read {read}, but {accepted} + {unchanged} + {quarantined} stand for")
        self._parts.append(
            EntityCommit(
                entity=entity.name,
                schema_version=entity.schema_version,
                read=read,
                accepted=accepted,
                unchanged=unchanged,
                quarantined=quarantined,
                deleted=deleted,
                files=files,
                quarantine_files=quarantine_files,
                resolved_files=resolved_files,
            )
        )
        return EntityCounts(entity.name, read, accepted, unchanged, quarantined, deleted)

    def commit(self) -> LandingReport:
        """Make the batch visible."""
        commit = Commit(
            sequence=self.sequence,
            batch_id=self.batch_id,
            source=self.source,
            kind=self.kind,
            origin=self.origin,
            position=str(self._place(max(self._placed - 1, 0))),
            source_at=self.source_at,
            landed_at=datetime.now(UTC),
            code_version=_code_version(),
            entities=self._parts,
            parameters=self.parameters,
        )
        self.files.publish(commit)
        counts = [
            EntityCounts(part.entity, part.read, part.accepted, part.unchanged, part.quarantined, part.deleted)
            for part in self._parts
        ]
        return LandingReport(self.source, self.batch_id, self.sequence, counts)

    def latest(self, entity: Entity, where: str = "true") -> str | None:
        """Return SQL for the latest landed row of each key, those that are gone too; None when nothing has landed.

        The columns are those of today's contract and the envelope. ``where`` limits which keys are looked at.
        """
        files = self.pin.files(entity.source, entity.name)
        if not files:
            return None
        return f"""
            select * from ({relation(self.con, entity, files)})
            where {where}
            qualify row_number() over (partition by _key order by _position desc) = 1
        """

    def _place(self, n: int) -> Position:
        """Return the position of the ``n``-th change of this batch."""
        if self.source_position is None:
            return Position(self.epoch, self.sequence, 0, n)
        # Two snapshots may stand at one place of the log: the later batch outranks the earlier one.
        return Position(self.epoch, self.source_position, self.sequence, n)

    def _one(self, query: str) -> int:
        row = self.con.execute(query).fetchone()
        if row is None:
            raise AssertionError(f"no row from: {query}")
        return int(row[0] or 0)

    def _screen(self, entity: Entity) -> None:
        """Fill ``screened`` with the records whose text holds a card number, or a zero byte (PostgreSQL takes none)."""
        self.con.execute("create or replace temp table screened (_ordinal bigint, _rule text, _reason text)")
        for column in entity.text_columns:
            candidates = self.con.execute(
                f"""
                select _ordinal, "{column}" from checked
                where (length("{column}") >= {SHORTEST_CARD} and regexp_matches("{column}", {text_literal(PREFILTER)}))
                    or contains("{column}", chr(0))
                """
            )
            found: list[tuple[int, str, str]] = []
            while rows := candidates.fetchmany(10_000):
                found += [finding for row in rows if (finding := _finding(row[0], column, row[1])) is not None]
            if found:
                self.con.executemany("insert into screened values (?, ?, ?)", found)

    def _previous(self, staged: Staged) -> str:
        """Return SQL for the latest landed state of each key: key, content hash and operation."""
        entity = staged.entity
        files = self.pin.files(entity.source, entity.name)
        if not files:
            return "select ''::varchar as _key, ''::varchar as _content_hash, ''::varchar as _op where false"
        asked_for = "" if staged.is_complete else "where _key in (select _key from keyed union all from absent)"
        if len(files) == 1 and not self.pin.repeats_keys(entity.source, entity.name):
            return f"select _key, _content_hash, _op from {parquet(files)} {asked_for}"
        return f"""
            select
                _key,
                arg_max(_content_hash, _position) as _content_hash,
                arg_max(_op, _position) as _op,
            from {parquet(files)}
            {asked_for}
            group by _key
        """

    def _changed(self, staged: Staged) -> str:
        """Return SQL for the landed rows that this batch replaces: the latest row of each changed or deleted key."""
        entity = staged.entity
        names = ", ".join(f'"{name}"' for name in entity.column_names)
        landed = self.latest(entity, "_key in (select _key from replaced)")
        if landed is None:
            return f"select {names}, ''::varchar as _key, ''::varchar as _gone_op from checked where false"
        self.con.execute(
            f"create or replace temp table on_request as select unnest({_KEY_LIST}) as _key", [list(staged.on_request)]
        )
        return f"""
            with replaced as (
                select _key, false as is_gone from verdict where _op = 'u'
                union all
                select previous._key, true as is_gone
                from previous
                anti join keyed on keyed._key = previous._key
                where previous._op not in ('d', 'x') and {_is_absent(staged)}
            )
            select {names}, landed._key, case when replaced.is_gone then {self._gone_op(entity)} end as _gone_op
            from ({landed}) as landed
            join replaced on replaced._key = landed._key
        """

    def _gone_op(self, entity: Entity) -> str:
        """Return SQL for how a landed row ended: expired when its time was over and nobody asked to remove it."""
        if "expire_at" not in entity.column_names:
            return "'d'"
        is_over = f"landed.expire_at <= {text_literal(self.source_at.isoformat())}::timestamptz"
        return f"case when {is_over} and landed._key not in (select _key from on_request) then 'x' else 'd' end"

    def _count_verdicts(self) -> tuple[int, int, int]:
        accepted = self._one("select count(*) from verdict where _op <> 'unchanged'")
        unchanged = self._one("select count(*) from verdict where _op = 'unchanged'")
        gone = self._one("select count(*) from changed where _gone_op is not null")
        return accepted, unchanged, gone

    def _write_data(self, entity: Entity) -> list[str]:
        path, name = self.files.new("data", entity.source, entity.name)
        names = ", ".join(f'"{column}"' for column in entity.column_names)
        kept = ", ".join(f'keyed."{column}"' for column in entity.column_names)
        deletions = self._one("select count(*) from changed where _gone_op is not null")
        total = self._one(f"select coalesce(max(_ordinal) + 1, 0) + {deletions} from keyed")
        rows = f"""
            with replaced as (
                select _key, {record_of(entity)} as _before from changed
            ),
            upserts as (
                select {kept}, verdict._op, keyed._key, replaced._before, keyed._content_hash, keyed._ordinal as _place
                from keyed
                join verdict on verdict._ordinal = keyed._ordinal and verdict._op <> 'unchanged'
                left join replaced on replaced._key = keyed._key
            ),
            deletions as (
                select
                    {names},
                    _gone_op as _op,
                    _key,
                    replaced._before,
                    md5('') as _content_hash,
                    {total - deletions} + row_number() over (order by _key) - 1 as _place,
                from changed
                join replaced using (_key)
                where _gone_op is not null
            )
            select
                {names},
                _op,
                _key,
                _before,
                cast(null as varchar) as _unchanged_columns,
                {text_literal(self._place(0).prefix)} || printf('%08x', _place + {self._placed}) as _position,
                {text_literal(self.source_at.isoformat())}::timestamptz as _source_at,
                cast(null as varchar) as _transaction_id,
                {entity.schema_version}::integer as _schema_version,
                _content_hash,
                {text_literal(self.batch_id)} as _batch_id,
                {self.sequence}::bigint as _sequence,
            from (select * from upserts union all select * from deletions)
        """
        self._copy(rows, str(path))
        self._placed += total
        return [name]

    def _write_log(self, staged: Staged) -> list[str]:
        entity = staged.entity
        path, name = self.files.new("data", entity.source, entity.name)
        columns = ", ".join(f'keyed."{column}"' for column in entity.column_names)
        rows = f"""
            select
                {columns},
                case when {_IS_DELETED} then 'd' else log._op end as _op,
                keyed._key,
                case when not {_IS_ERASED} then log._before end as _before,
                case when not {_IS_ERASED} then log._unchanged_columns end as _unchanged_columns,
                log._position,
                log._changed_at as _source_at,
                log._transaction_id,
                {entity.schema_version}::integer as _schema_version,
                case when {_IS_DELETED} then md5('') else keyed._content_hash end as _content_hash,
                {text_literal(self.batch_id)} as _batch_id,
                {self.sequence}::bigint as _sequence,
            from keyed
            join {staged.relation} as log using (_ordinal)
            anti join refused using (_ordinal)
            order by log._position
        """
        self._copy(rows, str(path))
        return [name]

    def _write_quarantine(self, staged: Staged) -> tuple[int, list[str], list[str]]:
        """Write what was refused and is not in quarantine already, and settle what is no longer refused.

        Returns the number of refused records, and the names of the files written.
        """
        entity = staged.entity
        self.con.execute(f"create or replace temp table quarantine as {self._refused_records(staged.relation)}")
        quarantined = self._one("select count(*) from quarantine")
        standing = open_items(self.pin, entity.source, entity.name)
        if standing is None:
            return quarantined, self._write_refused(entity, "select * from quarantine") if quarantined else [], []
        self.con.execute(f"create or replace temp table standing as {standing}")
        fresh = "select * from quarantine anti join standing using (rule, record)"
        self.con.execute(
            "create or replace temp table looked_at as select unnest(?::varchar[]) as quarantine_id",
            [list(staged.replays)],
        )
        scope = _looked_at(staged)
        settled = f"select quarantine_id from standing anti join quarantine using (rule, record) where {scope}"
        quarantine_files, resolved_files = [], []
        if self._one(f"select count(*) from ({fresh})"):
            quarantine_files = self._write_refused(entity, fresh)
        if self._one(f"select count(*) from ({settled})"):
            path, name = self.files.new("resolved", entity.source, entity.name)
            self._copy(f"select distinct quarantine_id from ({settled}) order by quarantine_id", str(path))
            resolved_files = [name]
        return quarantined, quarantine_files, resolved_files

    def _refused_records(self, staged: str) -> str:
        # Digits that had to be removed outweigh any other reason: such a record cannot be landed again from quarantine.
        return f"""
            with records as (
                select refused._ordinal, refused._rule, refused._reason, coalesce(source._record, '') as raw
                from {staged} as source
                join refused on refused._ordinal = source._ordinal
            ),
            redacted as (
                select *, case when {_MAY_HOLD_CARD.format("raw")} then redact_record(raw) else raw end as record
                from records
            )
            select
                _ordinal,
                case when record <> raw then 'card_number' else _rule end as rule,
                case when record <> raw and _rule <> 'card_number' then 'card number in the record; also: ' else '' end
                    || case when {_MAY_HOLD_CARD.format("_reason")} then redact(_reason) else _reason end as reason,
                record,
            from redacted
        """

    def _write_refused(self, entity: Entity, rows: str) -> list[str]:
        path, name = self.files.new("quarantine", entity.source, entity.name)
        self._copy(
            f"""
            select
                {text_literal(entity.source)} as source,
                {text_literal(entity.name)} as entity,
                rule,
                reason,
                record,
                {text_literal(self.origin)} as origin,
                {text_literal(datetime.now(UTC).isoformat())}::timestamptz as quarantined_at,
                {text_literal(self.batch_id)} as batch_id,
                {self.sequence}::bigint as sequence,
            from ({rows})
            order by _ordinal
            """,
            str(path),
        )
        return [name]

    def _copy(self, rows: str, path: str) -> None:
        self.con.execute(f"copy ({rows}) to {text_literal(path)} (format parquet, compression zstd)")


@contextmanager
def landing(source: str, kind: str, origin: str, parameters: dict[str, str] | None = None) -> Iterator[Landing]:
    """Open the next batch of the configured raw zone, alone among all landings; commit it within, or nothing happened.

    ``with landing(...) as batch: batch.land(staged); report = batch.commit()``.
    """
    with RawZone(settings().raw_zone).writing() as files:
        con = duckdb.connect(
            config={"memory_limit": MEMORY_LIMIT, "temp_directory": str(files.aside / "spill"), "threads": 2}
        )
        try:
            con.execute("set TimeZone = 'UTC'")
            con.create_function("redact", redact, ["varchar"], "varchar")
            con.create_function("redact_record", redact_record, ["varchar"], "varchar")
            yield Landing(con, files, source, kind, origin, parameters or {}, source_at=datetime.now(UTC))
        finally:
            con.close()


def open_items(pin: Pin, source: str, entity: str) -> str | None:
    """Return SQL for the quarantined records of an entity that are not settled, or None when there never was one.

    The columns are those of the quarantine files and ``quarantine_id``, a digest of batch, rule and record.
    """
    files = pin.files(source, entity, "quarantine")
    if not files:
        return None
    items = f"""
        select *, md5(concat_ws(chr(31), batch_id, rule, record)) as quarantine_id
        from {parquet(files)}
    """
    if resolved := pin.files(source, entity, "resolved"):
        return f"{items} where quarantine_id not in (select quarantine_id from {parquet(resolved)})"
    return items


def _is_absent(staged: Staged) -> str:
    """Return SQL that tells whether a key which the relation lacks is gone from the source."""
    if not staged.is_complete:
        return "previous._key in (select _key from absent)"
    key = "json_extract_string(previous._key, '$[0]')"
    return " and ".join(["true", *_bounds(staged, key)])


def _bounds(staged: Staged, key: str) -> list[str]:
    return [
        *([] if staged.above is None else [f"{key} > {text_literal(staged.above)}"]),
        *([] if staged.up_to is None else [f"{key} <= {text_literal(staged.up_to)}"]),
    ]


def _looked_at(staged: Staged) -> str:
    """Return SQL that tells whether this batch saw what became of a quarantined record: it no longer stands otherwise.

    The key of a record is that of its document, or the first column of its key. What has none was not a record of the
    source that is read, such as a file that was refused as a whole: only its replay settles it.
    """
    replayed = "quarantine_id in (select quarantine_id from looked_at)"
    places = ("_id", staged.entity.key[0])
    found = ", ".join(f"json_extract_string(record, '$.{place}')" for place in places)
    key = f"case when json_valid(record) then coalesce({found}) end"
    if staged.is_complete:
        return f"({replayed} or ({' and '.join([f'{key} is not null', *_bounds(staged, key)])}))"
    if len(staged.entity.key) > 1:
        return replayed
    seen = "select json_extract_string(_key, '$[0]') from (select _key from keyed union all from absent)"
    return f"({replayed} or {key} in ({seen} where _key is not null))"


_IS_ERASED = "_ordinal in (select _ordinal from erased)"
_IS_DELETED = f"(_op = 'd' or {_IS_ERASED})"
_ERASED_ONLY = f"where {_IS_ERASED}"

_KEY_LIST = "list_transform(?::varchar[], lambda key: json_array(key)::varchar)"
"""Keys of one column as the envelope writes them."""

_MAY_HOLD_CARD = r"regexp_matches({}, '[0-9](?:[ -]?[0-9]){{12}}|\\u')"

# A column that is staged with its own type fits by itself (types as DuckDB describes them).
_STAGED_AS = {
    "bigint": "bigint",
    "integer": "integer",
    "boolean": "boolean",
    "date": "date",
    "timestamptz": "timestamp with time zone",
    "double precision": "double",
}

# What a record is refused for by itself: a card number outweighs a broken rule.
_UNSOUND = """
    select _ordinal, min(_rule) as _rule, min(_reason) as _reason from screened group by _ordinal
    union all
    select _ordinal, _rule, _reason
    from keyed
    where _rule is not null and _ordinal not in (select _ordinal from screened)
"""

# What is refused before the records are compared with what landed: broken rules, card numbers, and a key that the batch
# itself repeats with other content.
_REFUSED = f"""
    with sound as (
        select * from keyed where _rule is null and _ordinal not in (select _ordinal from screened)
    ),
    repeated_keys as (
        select _key from sound group by _key having count(*) > 1
    ),
    conflicts as (
        select
            _ordinal,
            _content_hash <> first_value(_content_hash) over (partition by _key order by _ordinal) as is_conflict,
        from sound
        semi join repeated_keys using (_key)
    )
    {_UNSOUND}
    union all
    select _ordinal, 'conflicting_duplicate' as _rule, 'same id, other content in one batch' as _reason
    from conflicts
    where is_conflict
"""

# One verdict a sound record: r new, u changed, or unchanged (also the second of two equal records).
_VERDICT = """
    with sound as (
        select _ordinal, _key, _content_hash from keyed anti join refused using (_ordinal)
    ),
    repeated_keys as (
        select _key from sound group by _key having count(*) > 1
    ),
    repetitions as (
        select _ordinal
        from sound
        semi join repeated_keys using (_key)
        qualify row_number() over (partition by _key order by _ordinal) > 1
    )
    select
        sound._ordinal,
        sound._key,
        case
            when repetitions._ordinal is not null then 'unchanged'
            when previous._key is null or previous._op in ('d', 'x') then 'r'
            when previous._content_hash = sound._content_hash then 'unchanged'
            else 'u'
        end as _op,
    from sound
    left join previous on previous._key = sound._key
    left join repetitions on repetitions._ordinal = sound._ordinal
"""


def _check_types(entity: Entity, staged: str, types: dict[str, str], whole: str) -> str:
    """Return SQL that casts every column to its type and names the first that does not fit or is missing."""
    wrong = "\n".join(
        f"when {_is_wrong(column)} "
        f"then 'wrong_type|{column.name} is no {column.type}: ' || left(\"{column.name}\"::varchar, 60)"
        for column in entity.columns
        if column.type != "text" and types[column.name] != _STAGED_AS.get(column.type)
    )
    missing = "\n".join(
        f"when \"{column.name}\" is null then 'missing_value|{column.name} is missing'"
        for column in entity.columns
        if column.required or column.name in entity.key
    )
    verdict = f"case {wrong} {missing} end" if wrong or missing else "cast(null as varchar)"
    casts = ", ".join(
        f'try_cast("{column.name}" as {column.duckdb_type}) as "{column.name}"' for column in entity.columns
    )
    return f"""
        with source as (select * exclude (_record) from {staged}),
        checked as (select *, case when _rule is null and {whole} then {verdict} end as _finding from source)
        select
            _ordinal,
            {casts},
            coalesce(_rule, split_part(_finding, '|', 1)) as _rule,
            coalesce(_reason, substr(_finding, strpos(_finding, '|') + 1)) as _reason,
        from checked
    """


def _is_wrong(column: Column) -> str:
    wrong = f'"{column.name}" is not null and try_cast("{column.name}" as {column.duckdb_type}) is null'
    if column.type in ("bigint", "integer"):  # DuckDB would round 1.7 to 2
        return f"""({wrong}) or not regexp_full_match("{column.name}"::varchar, '[+-]?[0-9]+')"""
    return wrong


def _key_and_hash(entity: Entity) -> str:
    # The hash covers names and values of what is not null, so that a column added later leaves it as it was.
    content = ", ".join(f"'{column.name}' || chr(31) || {_canonical(column)} || chr(30)" for column in entity.columns)
    key = ", ".join(f'"{name}"' for name in entity.key)
    complete = " and ".join(f'"{name}" is not null' for name in entity.key)
    return f"""
        select
            *,
            case when {complete} then json_array({key})::varchar end as _key,
            md5(concat({content})) as _content_hash,
        from checked
    """


def _canonical(column: Column) -> str:
    if column.type == "timestamptz":
        return f'cast(epoch_us("{column.name}") as varchar)'
    return f'cast("{column.name}" as varchar)'


def _forbidden_changes(immutable: tuple[str, ...]) -> str:
    """Return SQL for the changed records that differ from what landed in a column that may not change."""
    differing = " ".join(
        f'case when keyed."{name}" is distinct from changed."{name}" then \'{name}\' end,' for name in immutable
    )
    return f"""
        with compared as (
            select keyed._ordinal, concat_ws(', ', {differing.rstrip(",")}) as differing
            from keyed
            join verdict on verdict._ordinal = keyed._ordinal and verdict._op = 'u'
            join changed on changed._key = keyed._key
        )
        select _ordinal, 'other_content', 'id seen before with other content: ' || differing
        from compared
        where differing <> ''
    """


def _finding(ordinal: int, column: str, text: str) -> tuple[int, str, str] | None:
    if spans := find_card_numbers(text):
        return ordinal, "card_number", f"card number ({spans[0].brand}) in column {column}"
    return (ordinal, "zero_byte", f"zero byte in column {column}") if "\0" in text else None


def record_of(entity: Entity) -> str:
    """Return SQL for a row of an entity's columns as one text (JSON): how a record stands in quarantine."""
    pairs = ", ".join(f"'{name}', \"{name}\"" for name in entity.column_names)
    return f"json_object({pairs})::varchar"


def _code_version() -> str:
    try:
        return version("payments-platform")
    except PackageNotFoundError:  # running from a copy that was never installed
        return "0"
