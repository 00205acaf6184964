"""The docs site, generated from what was just built."""

import dagster as dg

from orchestration.docs_site import build_docs_site


@dg.asset(
    key=["docs", "site"], deps=[dg.AssetKey(["fct_fraud_scores"]), dg.AssetKey(["fct_payments"])], group_name="docs"
)
def docs_site() -> dg.MaterializeResult[None]:
    """Draw the diagrams from the live catalogue and the manifest, then generate the dbt docs site."""
    return dg.MaterializeResult(metadata={"index": str(build_docs_site())})
