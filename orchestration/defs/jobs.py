"""The jobs: the whole platform, a refresh on given stores, and the fraud model alone."""

import dagster as dg

from orchestration.defs.landing import FRAUD_SCORES_COLLECTION, landed_transactions
from orchestration.defs.operations import operational_stores

everything = dg.AssetSelection.all() - dg.AssetSelection.assets(landed_transactions)
fraud = dg.AssetSelection.assets(
    "fraud_model", FRAUD_SCORES_COLLECTION, ["documents", "fraud_scores"]
) | dg.AssetSelection.assets("stg_documents__fraud_scores", "fct_fraud_scores", "dim_fraud_model")

platform_job = dg.define_asset_job(
    "platform", everything, description="Simulate, land, gate, build, train, score and document, in this order."
)
refresh_job = dg.define_asset_job(
    "refresh",
    everything - dg.AssetSelection.assets(operational_stores),
    description="Everything after the operational stores: for a given PostgreSQL and MongoDB.",
)
fraud_job = dg.define_asset_job(
    "fraud", fraud, description="Train the fraud model on the features as built, and score."
)
