"""How the platform itself does: who looks at data, what is refused, and what does not answer."""

import json
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from typing import Any

from tests.warehouse.analyses.landed import Answer, Landed, basis_points, day, grouped, in_order, moment, percentile


def access_out_of_hours(landed: Landed) -> Answer:
    people = [row for row in landed.documents("audit_events") if row["actor_type"] != "service"]
    answer = []
    for (kind, actor), rows in grouped(people, lambda row: (row["actor_type"], row["actor_id"])).items():
        late = [
            row for row in rows if not 9 <= row["occurred_at"].hour < 17 or day(row["occurred_at"]).isoweekday() > 5
        ]
        if late:
            answer.append(
                {
                    "actor_type": kind,
                    "actor_id": actor,
                    "event_count": len(rows),
                    "out_of_hours_count": len(late),
                    "out_of_hours_export_count": sum(row["action"] == "export" for row in late),
                    "out_of_hours_denied_count": sum(row["outcome"] == "denied" for row in late),
                    "out_of_hours_merchant_count": len({row["merchant_id"] for row in late}),
                    "last_out_of_hours_at": max(row["occurred_at"] for row in late),
                    "out_of_hours_basis_points": basis_points(len(late), len(rows)),
                }
            )
    return in_order(answer, "-out_of_hours_count", "actor_type", "actor_id")


def quarantine_rate_by_entity(landed: Landed) -> Answer:
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    last: dict[tuple[str, str], datetime] = {}
    for batch in landed.batches:
        for entity in batch["entities"]:
            place = (batch["source"], entity["entity"])
            counts[place] += Counter(
                {name: entity[name] for name in ("read", "accepted", "unchanged", "quarantined")} | {"batches": 1}
            )
            last[place] = max(moment(batch["landed_at"]), last.get(place, moment(batch["landed_at"])))
    return in_order(
        [
            {
                "source": source,
                "entity": entity,
                "batch_count": found["batches"],
                "read_count": found["read"],
                "accepted_count": found["accepted"],
                "unchanged_count": found["unchanged"],
                "quarantined_count": found["quarantined"],
                "last_landed_on": day(last[source, entity]),
                "quarantined_basis_points": basis_points(found["quarantined"], found["read"]),
            }
            for (source, entity), found in counts.items()
        ],
        "-quarantined_count",
        "source",
        "entity",
    )


def webhook_failures_by_endpoint(landed: Landed) -> Answer:
    def seconds(row: dict[str, Any]) -> int:
        created_at: datetime = row["created_at"]
        return (moment(json.loads(row["attempts"])[-1]["attempted_at"]) - created_at) // timedelta(seconds=1)

    answer = []
    for (merchant, endpoint), rows in grouped(
        landed.documents("webhook_deliveries"), lambda row: (row["merchant_id"], row["endpoint"])
    ).items():
        states = Counter(row["state"] for row in rows)
        arrived = [row for row in rows if row["state"] == "delivered"]
        answer.append(
            {
                "merchant_id": merchant,
                "endpoint": endpoint,
                "delivery_count": len(rows),
                "delivered_count": len(arrived),
                "first_try_count": sum(row["attempt_count"] == 1 for row in arrived),
                "failed_count": states["failed"],
                "pending_count": states["pending"],
                "attempt_count": sum(row["attempt_count"] for row in rows),
                "p95_seconds_to_delivery": percentile(95, map(seconds, arrived)) if arrived else None,
                "failed_basis_points": basis_points(states["failed"], len(rows)),
            }
        )
    return in_order(answer, "-failed_count", "-attempt_count", "merchant_id", "endpoint")


def api_reliability_by_path(landed: Landed) -> Answer:
    answer = []
    for (path, version), rows in grouped(
        landed.documents("api_logs"), lambda row: (row["path"], row["api_version"] or "unknown")
    ).items():
        ours = Counter(day(row["occurred_at"]) for row in rows if row["status_code"] >= 500)
        limited = sum(row["status_code"] == 429 for row in rows)
        declined = sum(row["status_code"] == 402 for row in rows)
        answer.append(
            {
                "path": path,
                "api_version": version,
                "request_count": len(rows),
                "server_error_count": ours.total(),
                "rate_limited_count": limited,
                "client_error_count": sum(400 <= row["status_code"] < 500 for row in rows) - limited - declined,
                "declined_count": declined,
                "availability_basis_points": basis_points(len(rows) - ours.total(), len(rows)),
                "p95_latency_ms": percentile(95, [row["latency_ms"] for row in rows]),
                "worst_day": min(ours, key=lambda on: (-ours[on], on), default=None),
            }
        )
    return in_order(answer, "availability_basis_points", "path", "api_version")
