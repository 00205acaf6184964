"""Transaction files: CSV, Parquet and JSON lines, read as text first so that nothing is lost to guessed types.

docs/transaction-files.md describes the format, the mapping files and the rules.
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import duckdb
import pyarrow as pa

from ingestion.contracts import LARGEST_AMOUNT_MINOR, entities
from ingestion.delimited import Broken, decoded, header_of, records
from ingestion.landing import Landing, LandingReport, Staged, landing
from ingestion.mapping import FIELDS, Mapping, read_mapping
from ingestion.raw_zone import file_literal, text_literal
from payments.errors import UsageError
from payments.settings import PROJECT_ROOT

CURRENCIES = PROJECT_ROOT / "seeds" / "currencies.csv"
COUNTRIES = PROJECT_ROOT / "seeds" / "countries.csv"

MUTABLE = ("status", "anomaly_score", "is_fraud", "fraud_known_at")
"""What a later file may say differently about a transaction; everything else stays as it landed first."""

_OBLIGATORY = (("transaction_id",), ("transaction_at",), ("amount", "amount_minor"), ("customer_id", "merchant_id"))
_JSON_LINES = (".jsonl", ".ndjson", ".json")
_ROWS_A_BATCH = 50_000
_DOUBLE_DIGITS = {"DOUBLE": 15, "FLOAT": 6}  # decimal digits that a binary number keeps (IEEE 754)
_MOMENT = r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.]\d{1,9})?)?(Z|[+-]\d{2}(:?\d{2})?)?)?"


@dataclass(frozen=True)
class _Content:
    """A file in the DuckDB table ``content``: columns ``c0``, ``c1``, ... in the order of the file, one row a record.

    Beside them stand ``_broken`` (why a line is no record) and ``_line`` (that line).

    ``relation``: the table or a query of it, with ``_ordinal``; ``fields``: SQL of each canonical field as text;
    ``record``: SQL of the record as it goes to quarantine; ``broken``: the rule that a broken line breaks; ``digits``:
    SQL of the number of decimal digits that the file's amount keeps exactly, null for any number of them.
    """

    fields: dict[str, str]
    record: str
    relation: str = "(select rowid as _ordinal, * from content)"
    broken: str = "broken_row"
    digits: str = "cast(null as integer)"


def land_transactions(path: Path, mapping: Path | None = None, default_currency: str | None = None) -> LandingReport:
    """Land a file of transactions: ``.csv``, ``.parquet``, or JSON lines (``.jsonl``, ``.ndjson``, ``.json``).

    ``default_currency`` stands in for a missing currency; the mapping file's default is weaker. Raises ``UsageError``
    for a missing or unreadable file, an unknown extension, a wrong mapping or a file without an obligatory column. A
    record that does not fit is quarantined.
    """
    if not path.is_file():
        raise UsageError(f"There is no file {path}.")
    if path.suffix.lower() not in (".csv", ".parquet", *_JSON_LINES):
        raise UsageError(f"The name of {path} must end in .csv, .parquet, .jsonl, .ndjson or .json.")
    return land_mapped(path, read_mapping(mapping), default_currency, origin=str(path))


def land_mapped(
    path: Path, mapping: Mapping, default_currency: str | None, origin: str, replays: tuple[str, ...] = ()
) -> LandingReport:
    """Land a file of transactions with a mapping that has been read; ``replays`` as in :class:`Staged`.

    Raises ``UsageError`` as :func:`land_transactions` does.
    """
    currency = _known_currency(default_currency or mapping.defaults.get("currency"))
    parameters = {"mapping": mapping.model_dump_json(), "default_currency": default_currency or ""}
    with landing("files", "replay" if replays else "file", origin, parameters) as batch:
        content = _read(batch.con, path, mapping)
        _stage(batch, content, mapping, currency)
        transactions = entities("files")["transactions"]
        immutable = tuple(name for name in transactions.column_names if name not in (*MUTABLE, *transactions.key))
        batch.land(Staged(transactions, "transactions", immutable=immutable, replays=replays))
        return batch.commit()


def _known_currency(currency: str | None) -> str | None:
    if currency is None:
        return None
    with CURRENCIES.open(encoding="utf-8", newline="") as file:
        known = {row["currency"] for row in csv.DictReader(file)}
    if currency.upper() not in known:
        raise UsageError(f"The default currency {currency} is no ISO 4217 code, such as EUR.")
    return currency.upper()


def _read(con: duckdb.DuckDBPyConnection, path: Path, mapping: Mapping) -> _Content:
    try:
        match path.suffix.lower():
            case ".parquet":
                return _read_parquet(con, path, mapping)
            case ".csv":
                return _read_csv(con, path, mapping)
            case _:
                return _read_json_lines(con, path, mapping)
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror}.") from error


def _read_parquet(con: duckdb.DuckDBPyConnection, path: Path, mapping: Mapping) -> _Content:
    try:
        described = con.execute(f"describe select * from read_parquet({file_literal(path)})").fetchall()
        types = {str(name): str(kind) for name, kind, *_ in described}
        renamed = ", ".join(f"{_identifier(name)} as c{place}" for place, name in enumerate(types))
        con.execute(
            f"""
            create temp table content as
            select {renamed}, cast(null as varchar) as _broken from read_parquet({file_literal(path)})
            """
        )
    except duckdb.Error as error:
        raise UsageError(f"Cannot read {path} as Parquet: {str(error).splitlines()[0]}") from error
    columns = {name: f"cast(c{place} as varchar)" for place, name in enumerate(types)}
    digits = _DOUBLE_DIGITS.get(types.get(mapping.column_of("amount", list(types)) or "", ""))
    fields = _fields_of_columns(columns, mapping, path)
    exact = "cast(null as integer)" if digits is None else str(digits)
    return _Content(fields, _json_object(columns), digits=exact)


def _read_csv(con: duckdb.DuckDBPyConnection, path: Path, mapping: Mapping) -> _Content:
    with path.open("rb") as file:
        lines = decoded(file)
        first = next(lines, None)
        if first is None or isinstance(first, Broken):
            raise UsageError(f"{path} has no header line in UTF-8.")
        names, delimiter = header_of(first)
        if "" in names or len(set(names)) < len(names):
            raise UsageError(f"The header of {path} has an empty or a repeated name: {', '.join(names)}.")
        _fill(con, len(names), records(lines, delimiter, len(names)))
    columns = {name: f"c{place}" for place, name in enumerate(names)}
    record = f"case when _broken is null then {_json_object(columns)} else _line end"
    return _Content(_fields_of_columns(columns, mapping, path), record)


def _read_json_lines(con: duckdb.DuckDBPyConnection, path: Path, mapping: Mapping) -> _Content:
    with path.open("rb") as file:
        if file.read(4_096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
            raise UsageError(f"{path} holds a JSON array; write one object a line.")
        file.seek(0)
        _fill(con, 1, ([line] if isinstance(line, str) else line for line in decoded(file)))
    con.execute(
        """
        update content
        set
            c0 = null,
            _line = c0,
            _broken = case when json_valid(c0) then 'the line is no JSON object' else 'the line is no JSON' end
        where c0 is not null and (not json_valid(c0) or json_type(c0) <> 'OBJECT')
        """
    )
    names = {field: mapping.columns.get(field, field) for field in FIELDS}
    paths = [text_literal('$."' + name.replace("\\", "\\\\").replace('"', '\\"') + '"') for name in names.values()]
    parsed = f"(select rowid as _ordinal, *, json_extract_string(c0, [{', '.join(paths)}]) as found from content)"
    fields = {field: f"found[{place}]" for place, field in enumerate(FIELDS, start=1)}
    amount = paths[FIELDS.index("amount")]
    digits = f"case when json_type(c0, {amount}) = 'DOUBLE' then {_DOUBLE_DIGITS['DOUBLE']} end"
    return _Content(fields, "coalesce(c0, _line)", parsed, "broken_json", digits)


def _fill(con: duckdb.DuckDBPyConnection, width: int, rows: Iterable[list[str] | Broken]) -> None:
    """Create the table ``content`` (all text) from rows in their order."""
    columns = [*(f"c{place}" for place in range(width)), "_line", "_broken"]
    con.execute(f"create temp table content ({', '.join(f'{name} varchar' for name in columns)})")
    blank: list[str | None] = [None] * width
    for batch in _batches(rows):
        cells = [[*blank, row.line, row.reason] if isinstance(row, Broken) else [*row, None, None] for row in batch]
        arrow = pa.Table.from_arrays([pa.array(column, pa.string()) for column in zip(*cells, strict=True)], columns)
        con.register("incoming", arrow)
        con.execute("insert into content select * from incoming")
        con.unregister("incoming")


def _batches(rows: Iterable[list[str] | Broken]) -> Iterator[list[list[str] | Broken]]:
    source = iter(rows)
    while batch := list(islice(source, _ROWS_A_BATCH)):
        yield batch


def _fields_of_columns(columns: dict[str, str], mapping: Mapping, path: Path) -> dict[str, str]:
    """Return the SQL of each field that the file has.

    Raises ``UsageError`` when a mapped column is absent, or an obligatory field has neither a column nor a default.
    """
    present = list(columns)
    names = {field: mapping.column_of(field, present) for field in FIELDS}
    if absent := [name for name in names.values() if name is not None and name not in columns]:
        raise UsageError(f"The mapping names a column that {path} lacks: {absent[0]} (it has {', '.join(present)}).")
    for choice in _OBLIGATORY:
        if not any(names[field] or field in mapping.defaults for field in choice):
            wanted = " or ".join(choice)
            raise UsageError(
                f"{path} has no column {wanted}: name it in a mapping file (columns: {', '.join(present)})."
            )
    return {field: columns[name] for field, name in names.items() if name is not None}


def _stage(batch: Landing, content: _Content, mapping: Mapping, currency: str | None) -> None:
    """Create the view ``transactions``: the content in canonical columns, with the rule that a record breaks."""
    con = batch.con
    defaults = {**mapping.defaults, **({} if currency is None else {"currency": currency})}
    con.execute(f"create temp table currencies as from read_csv({file_literal(CURRENCIES)}, all_varchar = true)")
    con.execute(f"create temp table countries as from read_csv({file_literal(COUNTRIES)}, all_varchar = true)")
    fields = ",\n".join(f"{_field(content.fields.get(name), defaults.get(name))} as {name}" for name in FIELDS)
    label_known = "cast(null as timestamptz)"
    if mapping.label_delay_days is not None:
        label_known = f"case when is_fraud_value then transaction_moment + to_days({mapping.label_delay_days}) end"
    all_rules = ((content.broken, "_broken is not null", "_broken"), *_RULES)
    rules = "\n".join(f"when {condition} then '{rule}'" for rule, condition, _ in all_rules)
    reasons = "\n".join(f"when '{rule}' then {reason}" for rule, _, reason in all_rules)
    con.execute(
        f"""
        create temp view transactions as
        with fields as (
            select _ordinal, _broken, {content.record} as _record, {content.digits} as exact_digits, {fields}
            from {content.relation}
        ),
        parts as (
            select
                * exclude (currency, ip_country, status),
                upper(currency) as currency,
                upper(ip_country) as ip_country,
                lower(coalesce(status, 'succeeded')) as status,
                {_moment("transaction_at")} as transaction_moment,
                {_moment("fraud_known_at")} as fraud_known_moment,
                case
                    when lower(is_fraud) in ('true', 't', 'yes', 'y', '1', '1.0') then true
                    when lower(is_fraud) in ('false', 'f', 'no', 'n', '0', '0.0') then false
                end as is_fraud_value,
                try_cast(anomaly_score as double) as score,
                regexp_full_match(amount, '[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)') as is_plain_amount,
                ltrim(amount, '+-') as unsigned_amount,
                case
                    when regexp_full_match(amount_minor, '[+-]?[0-9]+([.]0+)?')
                    then try_cast(split_part(amount_minor, '.', 1) as bigint)
                end as given_minor,
            from fields
        ),
        scaled as (
            select
                parts.*,
                try_cast(currencies.exponent as integer) as exponent,
                countries.country is not null as is_country,
                split_part(unsigned_amount, '.', 1) as whole,
                rtrim(split_part(unsigned_amount, '.', 2), '0') as decimals,
            from parts
            left join currencies on currencies.currency = parts.currency
            left join countries on countries.country = parts.ip_country
        ),
        -- By digits, not by arithmetic: exact for every length.
        minor as (
            select
                *,
                case
                    when is_plain_amount and length(decimals) <= exponent
                    then try_cast('0' || whole || rpad(decimals, exponent, '0') as bigint)
                end as scaled_minor,
                length(ltrim(whole || decimals, '0')) as digits,
            from scaled
        ),
        judged as (
            select *, case {rules} end as _rule from minor
        )
        select
            _ordinal,
            transaction_id,
            merchant_id,
            customer_id,
            coalesce(given_minor, scaled_minor) as amount_minor,
            currency,
            payment_method,
            transaction_moment as transaction_at,
            ip_country,
            device_type,
            status,
            score as anomaly_score,
            is_fraud_value as is_fraud,
            coalesce(fraud_known_moment, {label_known}) as fraud_known_at,
            _rule,
            case _rule {reasons} end as _reason,
            _record,
        from judged
        """
    )


def _field(expression: str | None, default: str | None) -> str:
    """Return SQL of a field as trimmed text, null when empty, with its default."""
    fallback = "cast(null as varchar)" if default is None else text_literal(default)
    return fallback if expression is None else f"coalesce(nullif(trim({expression}), ''), {fallback})"


def _moment(column: str) -> str:
    # A moment without an offset is UTC: the time zone of the connection.
    return f"case when regexp_full_match({column}, '{_MOMENT}') then try_cast({column} as timestamptz) end"


def _told(expression: str, what: str, name: str | None = None) -> str:
    return f"'{name or expression} ' || left({expression}, 60) || ' {what}'"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _json_object(columns: dict[str, str]) -> str:
    pairs = ", ".join(f"{text_literal(name)}, {expression}" for name, expression in columns.items())
    return f"cast(json_object({pairs}) as varchar)"


# Rule, condition and reason (SQL over the CTE minor), in the order they are tried; the first that holds counts.
_RULES = (
    ("missing_id", "transaction_id is null", "'transaction_id is missing'"),
    ("missing_time", "transaction_at is null", "'transaction_at is missing'"),
    (
        "wrong_time",
        "transaction_moment is null or transaction_moment < '1970-01-01' or transaction_moment >= '2100-01-01'",
        _told("transaction_at", "is no moment from 1970 to 2099 such as 2026-06-30T12:00:00Z"),
    ),
    ("missing_party", "coalesce(customer_id, merchant_id) is null", "'customer_id and merchant_id are both missing'"),
    (
        "missing_currency",
        "currency is null",
        "'currency is missing: give a default by --currency or in the mapping file'",
    ),
    ("unknown_currency", "exponent is null", _told("currency", "is no ISO 4217 code")),
    ("missing_amount", "coalesce(amount, amount_minor) is null", "'amount is missing'"),
    ("wrong_amount", "not is_plain_amount", _told("amount", "is no plain decimal number")),
    (
        "wrong_amount_minor",
        "amount_minor is not null and given_minor is null",
        _told("amount_minor", "is no whole number"),
    ),
    (
        "negative_amount",
        "given_minor < 0 or (starts_with(amount, '-') and digits > 0)",
        _told("coalesce(amount, amount_minor)", "is negative", name="amount"),
    ),
    (
        "too_many_decimals",
        "length(decimals) > exponent",
        "'amount ' || left(amount, 60) || ' has more decimals than the ' || exponent || ' of ' || currency",
    ),
    (
        "inexact_amount",
        "digits > exact_digits",
        _told("amount", "has more digits than a binary number keeps: write it as text, decimal or amount_minor"),
    ),
    (
        "amount_out_of_range",
        f"amount is not null and scaled_minor is null or coalesce(given_minor, scaled_minor) > {LARGEST_AMOUNT_MINOR}",
        _told("coalesce(amount, amount_minor)", "is too large", name="amount"),
    ),
    ("amounts_disagree", "given_minor <> scaled_minor", "'amount and amount_minor disagree'"),
    (
        "unknown_status",
        "status not in ('succeeded', 'failed', 'refunded', 'pending')",
        _told("status", "is none of succeeded, failed, refunded, pending"),
    ),
    ("unknown_country", "ip_country is not null and not is_country", _told("ip_country", "is no ISO 3166-1 code")),
    (
        "wrong_score",
        "anomaly_score is not null and coalesce(score not between 0 and 1, true)",
        _told("anomaly_score", "is no number from 0 to 1"),
    ),
    ("wrong_label", "is_fraud is not null and is_fraud_value is null", _told("is_fraud", "is neither true nor false")),
    (
        "wrong_label_time",
        "fraud_known_at is not null and fraud_known_moment is null",
        _told("fraud_known_at", "is no moment such as 2026-06-30T12:00:00Z"),
    ),
)
