"""Commands against disaster: standby, failover, backup, restore, and the drill that rehearses them."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from payments.cli.printing import console, exit_unless, print_table, size, yes
from payments.errors import UsageError

if TYPE_CHECKING:
    from payments.systems.oltp.replica import ReplicaStatus

app = typer.Typer()
replica_app = typer.Typer(help="A streaming standby of the embedded PostgreSQL.", no_args_is_help=True)
app.add_typer(replica_app, name="replica")


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
    exit_unless(found.state == "streaming")


def _print_replica(found: "ReplicaStatus") -> None:
    slots = ", ".join(f"{slot.name} ({'ready' if slot.is_ready else 'NOT ready'})" for slot in found.slots)
    mode = "synchronous" if found.is_synchronous else "asynchronous"
    print_table(
        "Standby",
        ["where", "runs", "mode", "state", "sync state", "bytes behind", "logical slots"],
        [[found.where, yes(found.is_running), mode, found.state, found.sync_state, found.lag_bytes, slots]],
    )


@app.command()
def failover() -> None:
    """Make the standby the primary; the old primary is stopped first and cannot return."""
    from payments.systems.oltp.replica import failover as run

    done = run()
    print_table(
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
    print_table(
        "Backup",
        ["label", "size", "timeline", "start", "end", "restorable from"],
        [
            [
                *(taken.label, size(taken.size_bytes), taken.timeline, taken.start_lsn, taken.end_lsn),
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
    """Put PostgreSQL back to a moment; the data folder is set aside, a standby dropped, and erased again who was."""
    from ingestion.erasure import reapply
    from payments.systems.oltp.backup import restore as run

    try:
        moment = None if to == "latest" else datetime.fromisoformat(to)
    except ValueError:
        raise UsageError(f"--to takes a moment as 2026-06-30T12:00:00Z, but it is {to!r}") from None
    done = run(moment)
    reapply()
    print_table(
        "Restored",
        ["backup", "to", "last commit", "timeline", "seconds", "set aside"],
        [
            [
                *(done.backup.label, to, None if done.last_commit is None else done.last_commit.isoformat()),
                *(done.timeline, f"{done.seconds:.2f}", done.set_aside),
            ]
        ],
    )


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
    from payments.simulation.traffic import run_traffic
    from payments.systems.oltp.drill import TrafficReport
    from payments.systems.oltp.drill import drill as run

    chosen = secrets.randbelow(1_000_000) if seed is None else seed

    def traffic(stop: threading.Event) -> TrafficReport:
        return run_traffic(tps=tps, seconds=3_600, clients=clients, seed=chosen, stop=stop)

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
    print_table(
        f"Drill: seed {report.seed}, {mode} standby",
        ["recovery", "RPO: lost", "surplus", "RTO", "broken"],
        rows,
    )
    exit_unless(report.passed)
