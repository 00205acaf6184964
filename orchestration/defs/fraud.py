"""The fraud model: trained on the features, its scores served from the document store."""

import dagster as dg

from ml.score import score
from ml.train import train
from orchestration.defs.landing import FRAUD_SCORES_COLLECTION
from payments.systems.documents import server as documents_server
from payments.systems.documents.collections import apply_collections


@dg.asset(deps=[dg.AssetKey(["feat_payments"]), dg.AssetKey(["fct_payments"])], group_name="fraud", kinds={"lightgbm"})
def fraud_model() -> dg.MaterializeResult[None]:
    """Train on the past, measure on the days after the label delay, and publish the model to the document store."""
    documents_server.start()  # a platform that only landed files has not started it yet
    apply_collections()
    report = train()
    return dg.MaterializeResult(metadata=report.metadata())


@dg.asset(key=FRAUD_SCORES_COLLECTION, deps=[fraud_model], group_name="fraud", kinds={"mongodb"})
def fraud_scores() -> dg.MaterializeResult[None]:
    """Score the payments after the training period and write the scores into the document store."""
    report = score()
    return dg.MaterializeResult(metadata=report.metadata())
