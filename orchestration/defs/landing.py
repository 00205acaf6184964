"""Landing: one asset for each source table, keyed like its dbt source."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from ingestion.cdc.copies import advance_copies
from ingestion.cdc.stream import drain
from ingestion.documents import land_documents
from ingestion.files import land_transactions
from ingestion.landing import LandingReport
from orchestration.defs.operations import DOCUMENTS, OLTP
from orchestration.defs.warehouse import source_tables

TABLES = source_tables("oltp")
SCORES = "fraud_scores"
COLLECTIONS = [table for table in source_tables("documents") if table != SCORES]
COPIES = dg.AssetKey(["operations", "copies"])
FRAUD_SCORES_COLLECTION = dg.AssetKey(["operations", SCORES])


def _specs(source: str, tables: list[str], dep: dg.AssetKey) -> list[dg.AssetSpec]:
    return [dg.AssetSpec(dg.AssetKey([source, table]), deps=[dep], kinds={"parquet"}) for table in tables]


def _results(source: str, tables: list[str], *reports: LandingReport) -> Iterator[dg.MaterializeResult[None]]:
    """Yield one result a table, of all batches that landed a part of it."""
    for entity in tables:
        parts = [counts for report in reports for counts in report.entities if counts.entity == entity]
        batches = [report.batch_id for report in reports if any(c.entity == entity for c in report.entities)]
        yield dg.MaterializeResult(
            asset_key=[source, entity],
            metadata={
                "dagster/row_count": sum(part.accepted for part in parts),
                "read": sum(part.read for part in parts),
                "unchanged": sum(part.unchanged for part in parts),
                "quarantined": sum(part.quarantined for part in parts),
                "deleted": sum(part.deleted for part in parts),
                "batch_id": ", ".join(batches),
            },
        )


@dg.multi_asset(name="land_oltp", specs=_specs("oltp", TABLES, OLTP), group_name="landing")
def landed_oltp() -> Iterator[dg.MaterializeResult[None]]:
    """Land what was committed in the operational store by now: a snapshot first, then its log."""
    yield from _results("oltp", TABLES, *drain())


@dg.asset(
    key=COPIES,
    deps=[DOCUMENTS, *(dg.AssetKey(["oltp", table]) for table in TABLES)],
    group_name="landing",
    kinds={"mongodb"},
)
def document_copies() -> dg.MaterializeResult[None]:
    """Bring profiles, merchant risk and online features in the document store up to what has landed."""
    report = advance_copies()
    if report.failure is not None:
        raise dg.Failure(report.failure)
    return dg.MaterializeResult(metadata={"written": report.written, "refused": report.refused})


@dg.multi_asset(name="land_documents", specs=_specs("documents", COLLECTIONS, COPIES), group_name="landing")
def landed_documents() -> Iterator[dg.MaterializeResult[None]]:
    """Land the document collections."""
    yield from _results("documents", COLLECTIONS, *land_documents(COLLECTIONS))


@dg.multi_asset(
    name="land_fraud_scores", specs=_specs("documents", [SCORES], FRAUD_SCORES_COLLECTION), group_name="fraud"
)
def landed_fraud_scores() -> Iterator[dg.MaterializeResult[None]]:
    """Land the scores that the model wrote into the document store."""
    yield from _results("documents", [SCORES], *land_documents([SCORES]))


class TransactionFile(dg.Config):
    """A file of transactions, with its mapping file and the currency of rows that name none."""

    file: str
    mapping: str | None = None
    currency: str | None = None


@dg.asset(key=["files", "transactions"], group_name="landing", kinds={"parquet"})
def landed_transactions(config: TransactionFile) -> dg.MaterializeResult[None]:
    """Land a file of transactions (CSV, Parquet or JSON lines)."""
    report = land_transactions(
        Path(config.file),
        mapping=Path(config.mapping) if config.mapping else None,
        default_currency=config.currency,
    )
    return next(_results("files", ["transactions"], report))
