"""The command ``payments``: operations only. What dbt or Dagster has a command for is done with that command."""

import sys
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from payments.errors import UsageError

if TYPE_CHECKING:
    from ingestion.landing import LandingReport
    from payments.systems.oltp.replica import ReplicaStatus

app = typer.Typer(
    help="Operate the payments data platform.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
land_app = typer.Typer(
    help="Land data into the raw zone: without a subcommand, PostgreSQL and the document collections."
)
load_app = typer.Typer(help="Load the raw zone into another engine.", no_args_is_help=True)
quarantine_app = typer.Typer(help="Look at quarantined records and land them again after a fix.", no_args_is_help=True)
replica_app = typer.Typer(help="A streaming standby of the embedded PostgreSQL.", no_args_is_help=True)
app.add_typer(land_app, name="land")
app.add_typer(load_app, name="load")
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(replica_app, name="replica")

console = Console()


def _print_table(title: str, header: list[str], rows: list[list[object]]) -> None:
    table = Table(title=title, title_justify="left")
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    # On a pipe rich assumes 80 columns and folds: let the table be as wide as its cells.
    (console if console.is_terminal else Console(width=240)).print(table)


@app.command()
def up() -> None:
    """Start the stores, apply the migrations and the collections."""
    from payments.systems import start_all

    start_all()
    status()


@app.command()
def down(
    delete: Annotated[bool, typer.Option("--delete", help="Delete the data of the embedded stores as well.")] = False,
) -> None:
    """Stop the embedded stores; their data stays."""
    from payments.systems import destroy_all, stop_all

    destroy_all() if delete else stop_all()


@app.command()
def status() -> None:
    """Print each store: version, where, up since, size, and what is missing."""
    from payments.systems import statuses

    rows: list[list[object]] = [
        [s.store, s.version, s.where, _moment(s.up_since), _size(s.size_bytes), "; ".join(s.missing)]
        for s in statuses()
    ]
    _print_table("Stores", ["store", "version", "where", "up since", "size", "missing"], rows)


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def _size(size_bytes: int | None) -> str:
    return "" if size_bytes is None else decimal(size_bytes)


@app.command()
def simulate(
    transactions: Annotated[int, typer.Option(min=1, help="Charges to write.")] = 30_000,
    days: Annotated[int, typer.Option(min=1, help="Days of history, ending at --end.")] = 180,
    seed: Annotated[int, typer.Option(min=0, help="The seed of every draw.")] = 7,
    end: Annotated[str, typer.Option(metavar="YYYY-MM-DD", help="The last day of the history.")] = "2026-06-30",
) -> None:
    """Write a believable history into PostgreSQL and the document store."""
    from payments.simulation.history import simulate as run

    try:
        last_day = date.fromisoformat(end)
    except ValueError:
        raise UsageError(f"--end takes a day as YYYY-MM-DD, but it is {end!r}") from None
    report = run(transactions=transactions, days=days, seed=seed, end=last_day)
    _print_table("Simulated", ["store", "table", "rows"], [list(row) for row in report.rows()])


@app.command()
def traffic(
    tps: Annotated[float, typer.Option(min=0, help="Requests a second; 0 is as fast as possible.")] = 100,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long.")] = 10,
    clients: Annotated[int, typer.Option(min=1, max=64, help="Connections.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="The seed of what is asked for.")] = 7,
) -> None:
    """Call the operational store as applications do; exit 1 when a repeated request got another answer."""
    from payments.simulation.traffic import run_traffic

    report = run_traffic(tps=tps, seconds=seconds, clients=clients, seed=seed)
    rows: list[list[object]] = [
        [operation, f"{answers:,}", f"{rate:,.1f}", *(f"{ms:.1f}" for ms in milliseconds)]
        for operation, answers, rate, *milliseconds in report.rows()
    ]
    _print_table("Traffic", ["operation", "answers", "answers/s", "p50 ms", "p95 ms", "p99 ms"], rows)
    console.print(", ".join(f"{count:,} {what}" for what, count in report.counts.items()), highlight=False)
    for line in [*report.differing, *report.errors[:5]]:
        console.print(line, style="red", markup=False)
    _exit_unless(not report.differing and not report.errors)


@land_app.callback(invoke_without_command=True)
def land(context: typer.Context) -> None:
    """Land PostgreSQL (one consistent snapshot) and the document collections."""
    if context.invoked_subcommand is not None:
        return
    from ingestion.documents import land_documents
    from ingestion.oltp import land_oltp

    _print_landings([land_oltp(), land_documents()])


@land_app.command("transactions")
def land_transactions(
    file: Annotated[Path, typer.Argument(help="A CSV, Parquet or JSON-lines file of transactions.")],
    mapping: Annotated[Path | None, typer.Option(help="A mapping file: names, defaults, label delay.")] = None,
    currency: Annotated[str | None, typer.Option(help="The currency of rows that name none.")] = None,
) -> None:
    """Land a file of transactions."""
    from ingestion.files import land_transactions as run

    _print_landings([run(file, mapping=mapping, default_currency=currency)])


def _print_landings(reports: "list[LandingReport]") -> None:
    rows: list[list[object]] = [
        [report.batch_id, e.entity, e.read, e.accepted, e.unchanged, e.quarantined, e.deleted]
        for report in reports
        for e in report.entities
    ]
    header = ["batch", "entity", "read", "accepted", "unchanged", "quarantined", "deleted"]
    _print_table("Landed: read = accepted + unchanged + quarantined", header, rows)


@load_app.command("postgres")
def load_postgres() -> None:
    """Load what is new in the raw zone into the PostgreSQL warehouse, for dbt build --target postgres."""
    from ingestion.warehouse import load_postgres as run

    _print_table("Loaded", ["table", "rows"], [[table, rows] for table, rows in run().items()])


@app.command()
def check(
    store: Annotated[Literal["oltp"], typer.Argument(help="The store to check; there is one.")] = "oltp",
) -> None:
    """Check every invariant of the operational store, each with the rows it was asked of; exit 1 when one is broken."""
    from payments.systems.oltp.check import check as run

    results = run()
    _print_table(
        f"Invariants of {store}", ["check", "holds", "detail"], [[r.name, _yes(r.passed), r.detail] for r in results]
    )
    _exit_unless(all(r.passed for r in results))


@app.command()
def maintain() -> None:
    """Do one round of care: next partitions, expired authorizations, due settlements, seals."""
    from payments.systems.oltp.maintenance import maintain as run

    done = run()
    rows: list[list[object]] = [
        ["partitions made", len(done.partitions)],
        ["authorizations expired", done.expired_authorizations],
        ["days settled", done.settled_days],
        ["idempotency keys forgotten", done.forgotten_keys],
        ["postings sealed", done.sealed_postings],
    ]
    _print_table("Maintenance", ["what", "how many"], rows)


@app.command()
def gate() -> None:
    """Run the compliance gate on the staging models; exit 1 when a rule is broken."""
    from payments.compliance.gate import run_gate

    result = run_gate()
    rows: list[list[object]] = [[c.name, c.relation, _yes(c.passed), c.rows, c.unexpected_count] for c in result.checks]
    _print_table("Compliance gate", ["rule", "relation", "holds", "rows", "unexpected"], rows)
    _exit_unless(result.passed)


@app.command()
def reconcile() -> None:
    """Compare captured money per currency in PostgreSQL, raw zone, staging and marts; exit 1 on a difference."""
    from payments.compliance.reconcile import reconcile as run

    result = run()
    _print_table("Captured, in minor units", result.header(), [list(row) for row in result.table()])
    for line in result.differences:
        console.print(line, style="red")
    _exit_unless(not result.differences)


@app.command()
def digest() -> None:
    """Compare the marts of the DuckDB and the PostgreSQL warehouse, model by model; exit 1 on a difference."""
    from payments.digest import compare

    comparisons = compare()
    rows: list[list[object]] = [
        [c.model, c.duckdb.rows, c.duckdb.checksum, c.postgres.rows, c.postgres.checksum, _yes(c.equal)]
        for c in comparisons
    ]
    _print_table("Digests", ["model", "duckdb rows", "duckdb", "postgres rows", "postgres", "equal"], rows)
    _exit_unless(all(c.equal for c in comparisons))


@quarantine_app.command("list")
def quarantine_list(
    batch: Annotated[str | None, typer.Argument(help="One batch only.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows to print.")] = 100,
) -> None:
    """Print what is in quarantine, with the reason."""
    from ingestion.quarantine import count_quarantine, list_quarantine

    records = list_quarantine(batch, limit=limit)
    rows: list[list[object]] = [[r.batch_id, r.source, r.entity, r.rule, r.reason, r.record] for r in records]
    total = sum(count.records for count in count_quarantine() if batch in {None, count.batch_id})
    _print_table(
        f"Quarantine: {len(rows):,} of {total:,} records",
        ["batch", "source", "entity", "rule", "reason", "record"],
        rows,
    )


@quarantine_app.command("replay")
def quarantine_replay(
    batch: Annotated[str, typer.Argument(help="The batch whose records to land again.")],
    mapping: Annotated[Path | None, typer.Option(help="A mended mapping file.")] = None,
    currency: Annotated[str | None, typer.Option(help="The currency of rows that name none.")] = None,
) -> None:
    """Land the quarantined records of a batch again, after a fix."""
    from ingestion.quarantine import replay

    _print_landings([replay(batch, mapping=mapping, default_currency=currency)])


@replica_app.command("start")
def replica_start(
    synchronous: Annotated[
        bool | None,
        typer.Option(help="Let commits wait for the standby; by default as before, or PAYMENTS_SYNCHRONOUS_REPLICA."),
    ] = None,
) -> None:
    """Make and start the standby, or change its mode."""
    from payments.systems.oltp.replica import start as run

    _print_replica(run(synchronous=synchronous))


@replica_app.command("stop")
def replica_stop() -> None:
    """End replication and delete the standby; the primary goes on alone."""
    from payments.systems.oltp.replica import stop as run

    console.print("The standby is gone." if run() else "There is no standby.")


@replica_app.command("status")
def replica_status() -> None:
    """Print the standby: mode, lag, and the logical slots it has ready; exit 1 when it does not follow the primary."""
    from payments.systems.oltp.replica import status as run

    found = run()
    if found is None:
        console.print("There is no standby.")
        return
    _print_replica(found)
    _exit_unless(found.state == "streaming")


def _print_replica(found: "ReplicaStatus") -> None:
    slots = ", ".join(f"{slot.name} ({'ready' if slot.is_ready else 'NOT ready'})" for slot in found.slots)
    mode = "synchronous" if found.is_synchronous else "asynchronous"
    _print_table(
        "Standby",
        ["where", "runs", "mode", "state", "sync state", "bytes behind", "logical slots"],
        [[found.where, _yes(found.is_running), mode, found.state, found.sync_state, found.lag_bytes, slots]],
    )


@app.command()
def failover() -> None:
    """Make the standby the primary; the old primary is stopped first and cannot return."""
    from payments.systems.oltp.replica import failover as run

    done = run()
    _print_table(
        "Failover: run payments replica start for a new standby",
        ["old primary", "timeline", "seconds", "set aside"],
        [
            [
                "stopped in order" if done.was_planned else "was down",
                done.timeline,
                f"{done.seconds:.2f}",
                done.set_aside,
            ]
        ],
    )


@app.command()
def backup() -> None:
    """Take and verify a base backup; archive WAL from the first one on, and drop the oldest beyond those to keep."""
    from payments.systems.oltp.backup import backup as run

    taken = run()
    _print_table(
        "Backup",
        ["label", "size", "timeline", "start", "end", "restorable from"],
        [
            [
                *(taken.label, _size(taken.size_bytes), taken.timeline, taken.start_lsn, taken.end_lsn),
                taken.ended_at.isoformat(),
            ]
        ],
    )


@app.command()
def restore(
    to: Annotated[
        str,
        typer.Option(metavar="TIME", help="A moment as 2026-06-30T12:00:00Z; latest is all that there is."),
    ] = "latest",
) -> None:
    """Put PostgreSQL back to a moment; the present data folder is set aside and a standby dropped."""
    from payments.systems.oltp.backup import restore as run

    try:
        moment = None if to == "latest" else datetime.fromisoformat(to)
    except ValueError:
        raise UsageError(f"--to takes a moment as 2026-06-30T12:00:00Z, but it is {to!r}") from None
    done = run(moment)
    _print_table(
        "Restored",
        ["backup", "to", "last commit", "timeline", "seconds", "set aside"],
        [
            [
                *(done.backup.label, to, None if done.last_commit is None else done.last_commit.isoformat()),
                *(done.timeline, f"{done.seconds:.2f}", done.set_aside),
            ]
        ],
    )


partitions_app = typer.Typer(help="Make, watch and retire the monthly partitions.", no_args_is_help=True)
app.add_typer(partitions_app, name="partitions")


@partitions_app.command("create")
def partitions_create(
    ahead: Annotated[int, typer.Option(min=0, max=120, help="Months to make beyond the current one.")] = 2,
) -> None:
    """Make the partitions of this and the coming months, and move rows that stand outside their month."""
    from payments.systems.oltp.partitions import create_months

    _print_table("Made", ["partition"], [[name] for name in create_months(ahead)])


@partitions_app.command("status")
def partitions_status() -> None:
    """Print every monthly partition; exit 1 when rows stand in a default partition."""
    from payments.systems.oltp.partitions import partitions, stray_rows

    strays = stray_rows()
    rows: list[list[object]] = [
        [
            p.name,
            None if p.month is None else f"{p.month:%Y-%m}",
            p.estimated_rows if p.month is not None else strays[p.table],
            _size(p.size_bytes),
        ]
        for p in partitions()
    ]
    header = ["name", "month", "rows", "size"]
    _print_table("Partitions: rows are estimates, in a default partition counted", header, rows)
    for table, count in strays.items():
        if count:
            console.print(f"{table}: {count} rows outside their month: run payments partitions create", style="red")
    _exit_unless(not any(strays.values()))


@partitions_app.command("retire")
def partitions_retire(
    before: Annotated[str, typer.Option(metavar="YYYY-MM", help="The first month that stays.")],
    to: Annotated[Path | None, typer.Option(help="Folder of the files; by default archive/ of the home.")] = None,
    table: Annotated[str | None, typer.Option(help="ops.outbox or ops.audit_log only; by default both.")] = None,
) -> None:
    """Put old months of the outbox and the audit trail into files, and drop them when the files read back whole."""
    from payments.settings import settings
    from payments.systems.oltp.partitions import RETIRED_TABLES, month_of, retire

    retired = retire(month_of(before), to or settings().home / "archive", (table,) if table else RETIRED_TABLES)
    rows: list[list[object]] = [[r.table, f"{r.month:%Y-%m}", r.rows, r.file, r.sha256] for r in retired]
    _print_table("Retired", ["table", "month", "rows", "file", "sha-256"], rows)


ledger_app = typer.Typer(help="Seal, close, sum, export and correct the ledger.", no_args_is_help=True)
adjust_app = typer.Typer(help="Correct a balance: one operator proposes, another decides.", no_args_is_help=True)
app.add_typer(ledger_app, name="ledger")
ledger_app.add_typer(adjust_app, name="adjust")


@ledger_app.command("seal")
def ledger_seal() -> None:
    """Seal the postings recorded since the last seal into the hash chain."""
    from payments.systems.oltp.ledger import seal

    console.print(f"sealed {seal()} postings")


@ledger_app.command("close")
def ledger_close(month: Annotated[str, typer.Argument(metavar="YYYY-MM", help="A month that has ended.")]) -> None:
    """Close a month for ever: nothing posts into it any more."""
    from payments.systems.oltp.ledger import close_period
    from payments.systems.oltp.partitions import month_of

    close_period(month_of(month))
    console.print(f"{month} is closed")


@ledger_app.command("trial-balance")
def ledger_trial_balance(
    until: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="The last day (UTC) that counts.")] = None,
) -> None:
    """Print debits, credits and balance of every account code; exit 1 when a currency does not balance."""
    from payments.systems.oltp.ledger import out_of_balance, trial_balance

    lines = trial_balance(_day("--until", until))
    rows: list[list[object]] = [[x.currency, x.code, x.debits_minor, x.credits_minor, x.balance_minor] for x in lines]
    _print_table("Trial balance, in minor units", ["currency", "account", "debits", "credits", "balance"], rows)
    differences = out_of_balance(lines)
    for currency, difference in differences.items():
        console.print(f"{currency}: debits exceed credits by {difference}", style="red")
    _exit_unless(not differences)


@ledger_app.command("export")
def ledger_export(
    file: Annotated[Path, typer.Argument(help="A .csv or .parquet file to write.")],
    first: Annotated[str | None, typer.Option("--from", metavar="YYYY-MM-DD", help="The first day (UTC).")] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="YYYY-MM-DD", help="The last day (UTC).")] = None,
) -> None:
    """Write the general ledger, an entry a row, into a file."""
    from payments.systems.oltp.ledger import export

    console.print(f"wrote {export(file, _day('--from', first), _day('--to', last))} entries to {file}")


@adjust_app.command("propose")
def ledger_adjust_propose(
    merchant: Annotated[str, typer.Argument(help="The merchant whose balance is wrong.")],
    amount: Annotated[int, typer.Option("--amount-minor", help="What to add, in minor units; below zero to take.")],
    currency: Annotated[str, typer.Option(help="The currency of the balance.")],
    reason: Annotated[str, typer.Option(help="Why, in ten letters or more.")],
) -> None:
    """Propose a correction; nothing moves until another operator approves it."""
    from payments.systems.oltp.ledger import propose_adjustment

    console.print(propose_adjustment(merchant, amount, currency, reason))


@adjust_app.command("approve")
def ledger_adjust_approve(
    merchant: Annotated[str, typer.Argument(help="The merchant of the proposal.")],
    adjustment: Annotated[str, typer.Argument(help="The id of the proposal.")],
) -> None:
    """Approve what another login proposed: it is posted."""
    from payments.systems.oltp.ledger import decide_adjustment

    decide_adjustment(merchant, adjustment, "approved")


@adjust_app.command("reject")
def ledger_adjust_reject(
    merchant: Annotated[str, typer.Argument(help="The merchant of the proposal.")],
    adjustment: Annotated[str, typer.Argument(help="The id of the proposal.")],
) -> None:
    """Reject what another login proposed."""
    from payments.systems.oltp.ledger import decide_adjustment

    decide_adjustment(merchant, adjustment, "rejected")


def _day(option: str, text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} takes a day as YYYY-MM-DD, but it is {text!r}") from None


@app.command()
def drill(
    seconds: Annotated[float, typer.Option(min=1, help="Traffic before the loss at most, and half of it after.")] = 10,
    tps: Annotated[float, typer.Option(min=1, help="Payments a second.")] = 50,
    clients: Annotated[int, typer.Option(min=1, help="Clients at once.")] = 4,
    seed: Annotated[int | None, typer.Option(min=0, help="The seed of the moments; by default a new one.")] = None,
    synchronous: Annotated[
        bool | None, typer.Option(help="Let commits wait for the standby; by default PAYMENTS_SYNCHRONOUS_REPLICA.")
    ] = None,
) -> None:
    """Rehearse a failover and a restore in a scratch store; print RPO and RTO; exit 1 when anything was lost."""
    import secrets
    import threading

    from payments.settings import settings
    from payments.systems.oltp.drill import TrafficReport
    from payments.systems.oltp.drill import drill as run

    chosen = secrets.randbelow(1_000_000) if seed is None else seed

    def traffic(stop: threading.Event) -> TrafficReport:
        from payments.simulation.traffic import run_traffic  # type: ignore[import-not-found, import-untyped, unused-ignore]

        found: TrafficReport = run_traffic(tps=tps, seconds=3_600, clients=clients, seed=chosen, stop=stop)
        return found

    report = run(
        traffic=traffic,
        seconds=seconds,
        seed=chosen,
        synchronous=settings().synchronous_replica if synchronous is None else synchronous,
    )
    mode = "synchronous" if report.is_synchronous else "asynchronous"
    rows: list[list[object]] = [
        [r.name, f"{r.lost} of {r.expected:,} {r.detail}", r.surplus, f"{r.seconds:.2f} s", "; ".join(r.faults)]
        for r in report.recoveries
    ]
    _print_table(
        f"Drill: seed {report.seed}, {mode} standby",
        ["recovery", "RPO: lost", "surplus", "RTO", "broken"],
        rows,
    )
    _exit_unless(report.passed)


def _yes(holds: bool) -> str:
    return "yes" if holds else "NO"


def _exit_unless(holds: bool) -> None:
    if not holds:
        raise typer.Exit(1)


def main() -> None:
    """Run the command; a user error becomes one line on standard error and exit code 2."""
    try:
        app()
    except UsageError as error:
        print(f"payments: {error}", file=sys.stderr)
        sys.exit(2)
