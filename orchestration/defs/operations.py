"""The operational sources: where money, identity and behaviour are born."""

from collections.abc import Iterator

import dagster as dg

from payments.simulation.history import simulate
from payments.systems import start_all
from payments.systems.oltp.check import check

OLTP = dg.AssetKey(["operations", "postgresql"])
DOCUMENTS = dg.AssetKey(["operations", "mongodb"])


class Simulation(dg.Config):
    """The size of the simulated history: charges, days, and the seed of every draw."""

    transactions: int = 30_000
    days: int = 180
    seed: int = 7


@dg.multi_asset(
    name="simulate",
    specs=[
        dg.AssetSpec(
            OLTP, description="The operational store: payments and the double-entry ledger.", kinds={"postgres"}
        ),
        dg.AssetSpec(
            DOCUMENTS,
            description="The document store: behaviour, logs, feedback, profiles, decisions, statements, evidence.",
            kinds={"mongodb"},
        ),
    ],
    check_specs=[
        dg.AssetCheckSpec(
            "invariants", asset=OLTP, description="Every invariant of the operational store holds.", blocking=True
        )
    ],
    group_name="operations",
)
def operational_stores(config: Simulation) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Start the stores, write the history that is not there yet, and check every invariant."""
    start_all()
    report = simulate(transactions=config.transactions, days=config.days, seed=config.seed)
    yield dg.MaterializeResult(asset_key=OLTP, metadata=report.tables)
    yield dg.MaterializeResult(asset_key=DOCUMENTS, metadata=report.collections)
    broken = [f"{result.name}: {result.detail}" for result in check() if not result.passed]
    yield dg.AssetCheckResult(
        asset_key=OLTP, check_name="invariants", passed=not broken, metadata={"broken": dg.MetadataValue.json(broken)}
    )
