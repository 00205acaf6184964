"""Documents per second into the raw zone beside plain pymongo and beside dlt, and point reads, in one run.

    uv run --group peers python benchmarks/documents.py [--documents N] [--rounds R]

Three ways of taking the same collection out of the same embedded server, in turn, the best of each counts:

- plain pymongo: one cursor in batches of 5,000, every document decoded and let go; the limit of any Python loader;
- landing: read, checked against the contract, screened for card numbers, hashed, compared, written as Parquet, synced;
- dlt: a resource over the same cursor into Parquet files on disk, as dlt's verified MongoDB source reads a collection
  (that source is not in dlt's package). Left out, and said so, where dlt is not installed.

Then landing again after a thousand changes, which reads the change stream and not the collection; and point reads by
id, one at a time.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.table import Table as Grid

COLLECTION = "click_events"
BATCH = 5_000
CHANGED = 1_000
POINT_READS = 2_000


def fill(documents: int) -> None:
    """Write events of sessions, the same for the same number, in the shape that the simulation writes."""
    from payments.systems.documents.client import database
    from payments.systems.documents.collections import indexes_afterwards

    written_at = datetime.now(UTC)
    with indexes_afterwards(COLLECTION):
        for start in range(0, documents, BATCH):
            events = [
                {
                    "_id": f"evt_{number:09d}",
                    "merchant_id": f"acct_{number % 200:04d}",
                    "session_id": f"sess_{number // 5:08d}",
                    "event_type": "product_view",
                    "page": f"/products/prod-{number % 2000:04d}",
                    "occurred_at": datetime.fromtimestamp(1_767_225_600 + number * 3, UTC),
                    "properties": {"product": f"prod-{number % 2000:04d}", "price_minor": 1999, "currency": "EUR"},
                    "expire_at": None,
                    "written_at": written_at,
                    "schema_version": 1,
                }
                for number in range(start, min(start + BATCH, documents))
            ]
            database()[COLLECTION].insert_many(events, ordered=False)


def read_plainly() -> int:
    """Read the collection and keep nothing."""
    from payments.systems.documents.client import database

    return sum(1 for _ in database()[COLLECTION].find({}, batch_size=BATCH))


def land(home: Path) -> int:
    """Land the collection into a raw zone of its own; return how many documents were accepted."""
    from ingestion.documents import land_documents
    from payments.settings import settings

    os.environ["PAYMENTS_RAW"] = str(home)
    settings.cache_clear()
    return sum(counts.accepted for report in land_documents([COLLECTION]) for counts in report.entities)


def load_with_dlt(home: Path) -> int:
    """Load the collection with dlt into Parquet files."""
    import dlt

    from payments.systems.documents.client import database

    rows = 0

    def pages() -> Iterator[list[dict[str, Any]]]:
        nonlocal rows
        page: list[dict[str, Any]] = []
        for document in database()[COLLECTION].find({}, batch_size=BATCH):
            page.append(document)
            if len(page) == BATCH:
                rows += len(page)
                yield page
                page = []
        rows += len(page)
        yield page

    resource = dlt.resource(pages, name=COLLECTION, primary_key="_id", max_table_nesting=0)
    pipeline = dlt.pipeline(
        pipeline_name="documents",
        pipelines_dir=str(home / "state"),
        destination=dlt.destinations.filesystem(bucket_url=(home / "files").as_uri()),
        dataset_name="raw",
    )
    pipeline.run(resource, loader_file_format="parquet")
    return rows


def best(action: Callable[[Path], int], rounds: int, expected: int) -> float:
    """Return the shortest time of some rounds, each with a new folder."""
    times = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            moved = action(Path(folder))
            times.append(time.perf_counter() - began)
        assert moved == expected, f"{moved} documents instead of {expected}"
    return min(times)


def land_changes(documents: int) -> tuple[float, float]:
    """Return the seconds of landing a thousand changes, and of landing when nothing changed."""
    from payments.systems.documents.client import database

    with tempfile.TemporaryDirectory() as folder:
        land(Path(folder))
        for number in Random(7).sample(range(documents), CHANGED):  # noqa: S311 (a repeatable draw)
            change = {"page": "/changed", "written_at": datetime.now(UTC)}
            database()[COLLECTION].update_one({"_id": f"evt_{number:09d}"}, {"$set": change})
        began = time.perf_counter()
        accepted = land(Path(folder))
        changed = time.perf_counter()
        assert accepted == CHANGED, f"{accepted} changes landed instead of {CHANGED}"
        land(Path(folder))
        return changed - began, time.perf_counter() - changed


def point_reads(documents: int) -> list[float]:
    """Return the milliseconds of reads by id, one after the other."""
    from payments.systems.documents.client import database

    collection = database()[COLLECTION]
    draw = Random(7)  # noqa: S311 (a repeatable draw)
    times = []
    for _ in range(POINT_READS):
        began = time.perf_counter()
        assert collection.find_one({"_id": f"evt_{draw.randrange(documents):09d}"}) is not None
        times.append((time.perf_counter() - began) * 1_000)
    return times


def main() -> None:
    """Run all of it on a server of its own and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir(mode=0o755)
        os.environ |= {"PAYMENTS_HOME": str(home), "PAYMENTS_DOCUMENTS_PORT": os.environ.get("BENCHMARK_PORT", "27030")}
        from payments.systems.documents import server
        from payments.systems.documents.collections import apply_collections

        server.start()
        try:
            apply_collections()
            fill(arguments.documents)
            report(arguments.documents, arguments.rounds)
        finally:
            server.destroy()


def report(documents: int, rounds: int) -> None:
    """Measure and print."""
    plain = best(lambda _: read_plainly(), rounds, documents)
    landed = best(land, rounds, documents)
    console = Console(width=120)
    grid = Grid("way", "documents/s", "seconds", "share of plain reading", title=f"{documents:,} documents")
    measured = [("plain pymongo reading", plain), ("landing into the raw zone", landed)]
    if find_spec("dlt") is not None:
        measured.append(("dlt into Parquet files", best(load_with_dlt, rounds, documents)))
    else:
        console.print("dlt is not installed: run this with uv run --group peers")
    for name, taken in measured:
        grid.add_row(name, f"{documents / taken:,.0f}", f"{taken:.2f}", f"{plain / taken:.2f}")
    console.print(grid)
    changes, nothing = land_changes(documents)
    console.print(f"landing {CHANGED:,} changes: {changes:.2f} s; landing when nothing changed: {nothing:.2f} s")
    times = sorted(point_reads(documents))
    cuts = statistics.quantiles(times, n=100)
    console.print(f"{POINT_READS:,} point reads: p50 {cuts[49]:.2f} ms, p99 {cuts[98]:.2f} ms")


if __name__ == "__main__":
    main()
