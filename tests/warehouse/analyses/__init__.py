"""Each analysis of the warehouse once more, in plain Python over what has landed.

A function has the name of its analysis. They share no SQL with the models, only the raw zone that both begin from.
"""

from tests.warehouse.analyses import books, customers, fraud, operations, payments, revenue, subscriptions

RECOMPUTED = {
    name: function
    for area in (revenue, payments, fraud, customers, subscriptions, books, operations)
    for name, function in vars(area).items()
    if callable(function) and function.__module__ == area.__name__ and not name.startswith("_")
}
"""The recomputation of each analysis, by its name."""
