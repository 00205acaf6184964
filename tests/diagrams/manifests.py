"""A small dbt manifest, as dbt shapes it, from short descriptions."""

from typing import Any

# Each column: its type, what is tested on it, and the model and column it refers to.
MARTS: dict[str, dict[str, tuple[str, list[str], str]]] = {
    "dim_date": {"date_day": ("date", ["unique", "not_null"], "")},
    "dim_merchant": {
        "merchant_key": ("text", ["unique", "not_null"], ""),
        "created_at": ("timestamp with time zone", [], ""),
    },
    "fct_payments": {
        "payment_key": ("text", ["unique", "not_null"], ""),
        "merchant_key": ("text", ["not_null"], "dim_merchant.merchant_key"),
        "paid_on": ("date", [], "dim_date.date_day"),
        "settled_on": ("date", [], "dim_date.date_day"),
        "anomaly_score": ("numeric(5, 4)", [], ""),
    },
    "fct_refunds": {
        "refund_key": ("text", ["unique", "not_null"], ""),
        "payment_key": ("text", ["not_null"], "fct_payments.payment_key"),
        "refunded_payment_key": ("text", [], "fct_refunds.refund_key"),
    },
}


def manifest() -> dict[str, Any]:
    """Return the manifest of MARTS and of one staging model."""
    nodes: dict[str, Any] = {}
    for model, columns in MARTS.items():
        nodes[f"model.payments.{model}"] = _model(
            model, "marts", {name: kind for name, (kind, _, _) in columns.items()}
        )
        for column, (_, tests, target) in columns.items():
            for test in tests:
                nodes |= _test(test, model, column, model, {})
            if target:
                parent, _, field = target.partition(".")
                nodes |= _test("relationships", model, column, parent, {"to": f"ref('{parent}')", "field": field})
    nodes["model.payments.stg_oltp__refunds"] = _model("stg_oltp__refunds", "staging", {"refund_id": "text"})
    return {"nodes": nodes, "sources": {}}


def _model(name: str, layer: str, columns: dict[str, str]) -> dict[str, Any]:
    return {
        "resource_type": "model",
        "name": name,
        "alias": name,
        "fqn": ["payments", layer, name],
        "description": "",
        "constraints": [],
        "columns": {column: {"name": column, "data_type": kind, "constraints": []} for column, kind in columns.items()},
    }


def _test(name: str, model: str, column: str, parent: str, arguments: dict[str, str]) -> dict[str, Any]:
    depends_on = [f"model.payments.{each}" for each in dict.fromkeys((parent, model))]
    return {
        f"test.payments.{name}_{model}_{column}": {
            "resource_type": "test",
            "attached_node": f"model.payments.{model}",
            "column_name": column,
            "test_metadata": {"name": name, "kwargs": {"column_name": column, **arguments}},
            "depends_on": {"nodes": depends_on},
        }
    }
