"""Diagrams that cannot go stale: drawn from the live catalogue, the collection files and the dbt manifest."""

from payments.diagrams.outputs import generate, generate_lineage, stale

__all__ = ["generate", "generate_lineage", "stale"]
