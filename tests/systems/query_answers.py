"""The example queries of the document store asked again in plain Python, of all documents at once.

Each function has the name and the parameters of a query and returns its rows, in the order of its columns.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from tests.systems.documents_for_queries import STEPS, Document, Store

Rows = list[list[Any]]


def _within(documents: Iterable[Document], field: str, since: datetime, until: datetime) -> list[Document]:
    return [document for document in documents if since <= document[field] < until]


def _of(documents: Iterable[Document], **wanted: object) -> list[Document]:
    return [d for d in documents if all(d.get(field) == value for field, value in wanted.items())]


def _by(documents: Iterable[Document], *fields: str) -> dict[tuple[Any, ...], list[Document]]:
    groups = defaultdict(list)
    for document in documents:
        groups[tuple(document[field] for field in fields)].append(document)
    return groups


def _first(values: Iterable[Any]) -> Any:
    return next(iter(values), None)


def checkout_funnel(store: Store, merchant: str, until: datetime, since: datetime) -> Rows:
    events = _within(_of(store["click_events"], merchant_id=merchant), "occurred_at", since, until)
    rows: Rows = []
    for number, step in enumerate(STEPS, start=1):
        sessions = len({event["session_id"] for event in events if event["event_type"] == step})
        if sessions:
            rows.append([number, step, sessions, 100 * sessions / rows[-1][2] if rows else None])
    return rows


def session_paths(store: Store, merchant: str, until: datetime, since: datetime, steps: int) -> Rows:
    events = _within(_of(store["click_events"], merchant_id=merchant), "occurred_at", since, until)
    sessions, paid = Counter[str](), Counter[str]()
    for of_session in _by(events, "session_id").values():
        walked = [e["event_type"] for e in sorted(of_session, key=lambda e: (e["occurred_at"], e["_id"]))]
        path = " > ".join(walked[:steps])
        sessions[path] += 1
        paid[path] += "payment_submitted" in walked
    return sorted(([path, count, paid[path]] for path, count in sessions.items()), key=lambda row: (-row[1], row[0]))


def overflowing_sessions(store: Store, merchant: str, until: datetime, since: datetime) -> Rows:
    rows = []
    for session in _within(_of(store["sessions"], merchant_id=merchant), "started_at", since, until):
        if not session.get("has_overflow"):
            continue
        parts = _of(store["session_overflows"], session_id=session["_id"])
        events = list(session["events"])
        for part in sorted(parts, key=lambda part: part["bucket"]):
            events += part["events"]
        steps = [event["event_type"] for event in events]
        walk = [step for place, step in enumerate(steps) if place == 0 or steps[place - 1] != step]
        rows.append(
            [
                session["_id"],
                session["customer_id"],
                session["has_converted"],
                session["event_count"],
                len(events),
                1 + len(parts),
                events[0]["occurred_at"],
                events[-1]["occurred_at"],
                " > ".join(walk),
            ]
        )
    return sorted(rows, key=lambda row: (-row[3], row[0]))


def error_bursts(store: Store, until: datetime, since: datetime, least: int, factor: int) -> Rows:
    failed = [r for r in _within(store["api_logs"], "occurred_at", since, until) if r["status_code"] >= 400]
    windows = defaultdict(list)
    for request in failed:
        at = request["occurred_at"]
        windows[at.replace(minute=at.minute - at.minute % 15, second=0), request["api_version"]].append(request)
    rows = []
    for (window, version), requests in sorted(windows.items()):
        before = sum(len(windows.get((window - timedelta(minutes=15 * n), version), ())) for n in range(1, 5))
        if len(requests) >= least and 4 * len(requests) >= factor * before:
            server_errors = sum(request["status_code"] >= 500 for request in requests)
            merchants = {request["merchant_id"] for request in requests}
            rows.append([window, version, len(requests), before, server_errors, len(merchants)])
    return rows


def errors_behind_failed_requests(
    store: Store, merchant: str, until: datetime, since: datetime, least_status: int
) -> Rows:
    requests = _within(_of(store["api_logs"], merchant_id=merchant), "occurred_at", since, until)
    rows = []
    for request in sorted(requests, key=lambda r: (r["occurred_at"], r["_id"])):
        if request["status_code"] < least_status:
            continue
        errors = sorted(_of(store["error_logs"], request_id=request["_id"]), key=lambda e: str(e["_id"]))
        for error in errors or [{}]:
            of_request = [request[name] for name in ("occurred_at", "_id", "method", "path", "status_code")]
            of_error = [error.get(name) for name in ("_id", "service", "severity", "error_type", "fingerprint")]
            rows.append([*of_request, request["error_code"], *of_error])
    return rows


def slowest_paths(store: Store, merchant: str, until: datetime, since: datetime) -> Rows:
    requests = _within(_of(store["api_logs"], merchant_id=merchant), "occurred_at", since, until)
    rows = []
    for (method, path), of_path in _by(requests, "method", "path").items():
        latencies = sorted(request["latency_ms"] for request in of_path)
        # The smallest value that at least p of 100 do not exceed.
        marks = [
            next(value for value in latencies if 100 * sum(other <= value for other in latencies) >= p * len(latencies))
            for p in (50, 95, 99)
        ]
        rows.append([method, path, len(latencies), *marks])
    return sorted(rows, key=lambda row: (-row[5], row[0], row[1]))


def feedback_themes(store: Store, merchant: str, until: datetime, since: datetime) -> Rows:
    segments = {profile["_id"]: profile["segment"] for profile in store["customer_profiles"]}
    said = _within(_of(store["feedback"], merchant_id=merchant), "submitted_at", since, until)
    groups = defaultdict(list)
    for one in said:
        groups[segments.get(one["customer_id"], "unknown"), one["topic"]].append(one)
    rows = []
    for (segment, topic), group in groups.items():
        ratings = [one["rating"] for one in group if one["rating"] is not None]
        negative, positive = len(_of(group, sentiment="negative")), len(_of(group, sentiment="positive"))
        mean = sum(ratings) / len(ratings) if ratings else None
        rows.append([segment, topic, len(group), negative, positive, mean])
    return sorted(rows, key=lambda row: (row[0], -row[2], row[1]))


def rating_trend(store: Store, merchant: str, until: datetime, since: datetime) -> Rows:
    weeks = defaultdict(list)
    for one in _within(_of(store["feedback"], merchant_id=merchant), "submitted_at", since, until):
        if one["rating"] is not None:
            day = one["submitted_at"].replace(hour=0, minute=0, second=0)
            weeks[day - timedelta(days=day.weekday())].append(one["rating"])
    rows = []
    for week, ratings in sorted(weeks.items()):
        recent = [r for n in range(4) for r in weeks.get(week - timedelta(days=7 * n), ())]
        low = sum(rating <= 2 for rating in ratings)
        rows.append([week, len(ratings), low, sum(ratings) / len(ratings), sum(recent) / len(recent)])
    return rows


def _newest(rows: list[Document]) -> Document | None:
    return max(rows, key=lambda row: (row["feature_set_version"], row["as_of"], row["available_at"]), default=None)


def features_now(store: Store, entity_type: str, entity: str) -> Rows:
    rows: Rows = []
    of_entity = _of(store["ml_features"], entity_id=entity, entity_type=entity_type)
    for (feature_set,), of_set in sorted(_by(of_entity, "feature_set").items()):
        latest = _newest(of_set)
        assert latest is not None
        for feature, value in sorted(latest["feature_values"].items()):
            known = [latest["as_of"], latest["available_at"]]
            rows.append([feature_set, latest["feature_set_version"], feature, value, *known])
    return rows


def features_as_known(store: Store, entity_type: str, entity: str, about: datetime, known_at: datetime) -> Rows:
    rows: Rows = []
    of_entity = _of(store["ml_features"], entity_id=entity, entity_type=entity_type)
    earlier = [row for row in of_entity if row["as_of"] <= about]
    for (feature_set,), of_set in sorted(_by(earlier, "feature_set").items()):
        now = _newest(of_set)
        then = _newest([row for row in of_set if row["available_at"] <= known_at]) or {"feature_values": {}}
        assert now is not None
        for feature, value in sorted(now["feature_values"].items()):
            old = then["feature_values"].get(feature)
            rows.append([feature_set, feature, old, then.get("as_of"), value, now["as_of"], old != value])
    return rows


def shared_devices(store: Store, merchant: str, until: datetime, since: datetime, least: int) -> Rows:
    known = [session for session in store["sessions"] if session["customer_id"] is not None]
    seen = {s["device_id"] for s in _within(_of(known, merchant_id=merchant), "started_at", since, until)}
    rows = []
    for device in seen:
        visits = _of(known, device_id=device)
        customers = {visit["customer_id"] for visit in visits}
        merchants = {visit["merchant_id"] for visit in visits}
        here = sorted({visit["customer_id"] for visit in _of(visits, merchant_id=merchant)})
        moments = [visit["started_at"] for visit in visits]
        counts = [len(customers), len(merchants), len(customers) - len(merchants)]
        if len(customers) >= least:
            rows.append([device, *counts, here, len(visits), min(moments), max(moments)])
    return sorted(rows, key=lambda row: (-row[3], row[0]))


def reviews_waiting(store: Store, until: datetime, since: datetime) -> Rows:
    reviews = _of(store["fraud_decisions"], decision="review", outcome=None)
    return [
        [
            currency,
            len(waiting),
            sum(decision["amount_minor"] for decision in waiting),
            len({decision["merchant_id"] for decision in waiting}),
            max(decision["score"] for decision in waiting),
            min(decision["decided_at"] for decision in waiting),
        ]
        for (currency,), waiting in sorted(_by(_within(reviews, "decided_at", since, until), "currency").items())
    ]


def false_positives(store: Store, decision: str, until: datetime, since: datetime) -> Rows:
    decided = _within(_of(store["fraud_decisions"], decision=decision), "decided_at", since, until)
    rows = []
    for (merchant, currency), group in _by(decided, "merchant_id", "currency").items():
        known = [one for one in group if one["outcome"] is not None]
        genuine = _of(known, outcome="genuine")
        if genuine:
            amount = sum(one["amount_minor"] for one in genuine)
            rows.append([merchant, currency, len(known), len(genuine), 100 * len(genuine) / len(known), amount])
    return sorted(rows, key=lambda row: (-row[3], row[0], row[1]))


def webhooks_due(store: Store, until: datetime) -> Rows:
    due = [d for d in _of(store["webhook_deliveries"], state="pending") if d["next_attempt_at"] <= until]
    rows = [
        [
            merchant,
            endpoint,
            len(group),
            sum(not delivery["attempts"] for delivery in group),
            max(len(delivery["attempts"]) for delivery in group),
            min(delivery["next_attempt_at"] for delivery in group),
            sorted({delivery["event_type"] for delivery in group}),
        ]
        for (merchant, endpoint), group in _by(due, "merchant_id", "endpoint").items()
    ]
    return sorted(rows, key=lambda row: (-row[2], row[0], row[1]))


def webhooks_failing(store: Store, merchant: str, until: datetime, since: datetime) -> Rows:
    sent = _within(_of(store["webhook_deliveries"], merchant_id=merchant), "created_at", since, until)
    rows = []
    for (endpoint,), group in _by(sent, "endpoint").items():
        open_ones = [delivery for delivery in group if delivery["state"] != "delivered"]
        if not open_ones:
            continue
        failed = _of(group, state="failed")
        answers = {d["attempts"][-1]["status_code"] if d["attempts"] else None for d in open_ones}
        rows.append(
            [
                endpoint,
                len(group),
                len(failed),
                len(open_ones) - len(failed),
                sum(len(delivery["attempts"]) for delivery in group),
                100 * len(failed) / len(group),
                sorted(answer for answer in answers if answer is not None),
                None in answers,
            ]
        )
    return sorted(rows, key=lambda row: (-row[2], -row[3], row[0]))


def customer_360(store: Store, customer: str) -> Rows:
    profile = _first(_of(store["customer_profiles"], _id=customer))
    if profile is None:
        return []
    charges = {charge["charge_id"] for charge in profile["recent_charges"]}
    decisions = [decision for decision in store["fraud_decisions"] if decision["_id"] in charges]
    sessions = _of(store["sessions"], customer_id=customer)
    said = _of(store["feedback"], customer_id=customer)
    ratings = [one["rating"] for one in said if one["rating"] is not None]
    stopped = [decision for decision in decisions if decision["decision"] != "allow"]
    return [
        ["profile", "merchant", profile["merchant_id"], None],
        ["profile", "country", profile["country"], None],
        ["profile", "segment", profile["segment"], None],
        ["payments", "payments", profile["payment_count"], None],
        ["payments", "last paid", profile["last_paid_at"], None],
        *(
            ["payments", "spent in minor units", spent["amount_minor"], spent["currency"]]
            for spent in sorted(profile["spent"], key=lambda spent: str(spent["currency"]))
        ),
        ["fraud", "recent payments not allowed", len(stopped), None],
        ["fraud", "highest recent score", max((decision["score"] for decision in decisions), default=None), None],
        ["behaviour", "sessions", len(sessions), None],
        ["behaviour", "sessions that paid", len(_of(sessions, has_converted=True)), None],
        ["behaviour", "devices", len({session["device_id"] for session in sessions}), None],
        ["behaviour", "last session", max((session["started_at"] for session in sessions), default=None), None],
        ["feedback", "feedback", len(said), None],
        ["feedback", "complaints", len(_of(said, sentiment="negative")), None],
        ["feedback", "mean rating", sum(ratings) / len(ratings) if ratings else None, None],
        *(
            ["offers", offer["slot"], offer["items"][0]["product"], None]
            for offer in sorted(_of(store["recommendations"], customer_id=customer), key=lambda o: str(o["slot"]))
        ),
    ]


def actor_actions(store: Store, actor: str, until: datetime, since: datetime) -> Rows:
    done = _within(_of(store["audit_events"], actor_id=actor), "occurred_at", since, until)
    rows = []
    for key, group in _by(done, "merchant_id", "action", "target_type", "outcome").items():
        targets = {one["target_id"] for one in group} - {None}
        moments = [one["occurred_at"] for one in group]
        rows.append([*key, len(group), len(targets), min(moments), max(moments)])
    return sorted(rows, key=lambda row: (row[0], -row[4], row[1], row[2], row[3]))


def denied_actions(store: Store, merchant: str, through: int, after: int) -> Rows:
    links = [link for link in _of(store["audit_events"], merchant_id=merchant) if after < link["sequence"] <= through]
    rows = []
    for key, group in _by(links, "actor_type", "actor_id", "action", "target_type").items():
        denied = _of(group, outcome="denied")
        if denied:
            last = max(one["occurred_at"] for one in denied)
            rows.append([*key, len(denied), len(group) - len(denied), last])
    return sorted(rows, key=lambda row: (-row[4], row[1], row[2], row[3]))


def recommendations_and_views(store: Store, customer: str) -> Rows:
    visits = {session["_id"] for session in _of(store["sessions"], customer_id=customer)}
    events = [event for event in store["click_events"] if event["session_id"] in visits]
    rows = []
    for offer in sorted(_of(store["recommendations"], customer_id=customer), key=lambda o: str(o["slot"])):
        for place, item in enumerate(offer["items"], start=1):
            seen = [event for event in events if event["properties"].get("product") == item["product"]]
            views, carts = _of(seen, event_type="product_view"), _of(seen, event_type="add_to_cart")
            last = max((event["occurred_at"] for event in views + carts), default=None)
            shown = [item["product"], item["score"], item["reason"]]
            rows.append([offer["slot"], place, *shown, len(views), len(carts), last])
    return rows


ANSWERS: dict[str, Callable[..., Rows]] = {
    function.__name__: function
    for function in (
        actor_actions,
        checkout_funnel,
        customer_360,
        denied_actions,
        error_bursts,
        errors_behind_failed_requests,
        false_positives,
        features_as_known,
        features_now,
        feedback_themes,
        overflowing_sessions,
        rating_trend,
        recommendations_and_views,
        reviews_waiting,
        session_paths,
        shared_devices,
        slowest_paths,
        webhooks_due,
        webhooks_failing,
    )
}
