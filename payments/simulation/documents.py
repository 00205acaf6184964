"""The documents of the same history: behaviour, logs, feedback, deliveries, audit, profiles, features and decisions.

What is drawn up front is a set of arrays; the documents themselves are made batch by batch. Every document has an `_id`
from the seed and its place, so that any part of a collection can be made again exactly.
"""

from payments.simulation.arrays import Ints
from payments.simulation.audit_events import AuditEvents
from payments.simulation.collection import Collection
from payments.simulation.customer_documents import CustomerDocuments
from payments.simulation.decisions import Decisions
from payments.simulation.deliveries import Deliveries
from payments.simulation.feedback import Encrypt, Feedback
from payments.simulation.interface_logs import InterfaceLogs
from payments.simulation.names import Names
from payments.simulation.visits import Visits

COLLECTIONS = (
    "sessions",
    "session_overflows",
    "click_events",
    "api_logs",
    "error_logs",
    "feedback",
    "webhook_deliveries",
    "audit_events",
    "customer_profiles",
    "ml_features",
    "recommendations",
    "fraud_decisions",
)


class Documents:
    """All documents of a history."""

    def __init__(self, names: Names) -> None:
        visits, self._feedback = Visits(names), Feedback(names)
        viewed = visits.viewed(len(names.business.population.customers.merchant))
        self._others = [
            part
            for source in (
                visits,
                InterfaceLogs(names),
                Deliveries(names),
                AuditEvents(names),
                CustomerDocuments(names, viewed),
                Decisions(names),
            )
            for part in source.collections()
        ]

    def counts(self) -> dict[str, int]:
        """Return how many documents each collection gets."""
        return {part.name: part.count for part in self.collections(lambda *_: None)}

    def feedback_subjects(self) -> Ints:
        """Return the persons who gave feedback."""
        return self._feedback.subjects()

    def collections(self, encrypt: Encrypt) -> list[Collection]:
        """Return every collection; `encrypt` seals a text under a person's key, or gives None when the key is gone."""
        parts = {part.name: part for part in self._others + self._feedback.collections(encrypt)}
        return [parts[name] for name in COLLECTIONS]
