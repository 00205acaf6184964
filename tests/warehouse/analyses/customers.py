"""Customers: who they are worth, who comes back, and where they live."""

from collections import Counter
from itertools import pairwise
from typing import Any

from tests.ingestion.raw import rows as versions_landed
from tests.warehouse.analyses.landed import (
    NOT_PAID,
    Answer,
    Landed,
    Payment,
    basis_points,
    grouped,
    in_order,
    month,
    ratio,
    total,
)


def rfm_segments_and_their_value(landed: Landed) -> Answer:
    known: set[tuple[str, Any]] = {(row["merchant_id"], row["customer_id"]) for row in landed.rows("customers")}
    for source, entity in (
        *(("documents", collection) for collection in ("sessions", "feedback", "customer_profiles")),
        *(("oltp", entity) for entity in ("charges", "invoices", "subscriptions")),
    ):
        known |= {(row["merchant_id"], row["customer_id"]) for row in landed.rows(entity, source)}
    known = {customer for customer in known if customer[1] is not None}

    paid = grouped([p for p in landed.payments if p.status not in NOT_PAID], lambda p: p.customer)
    money = {customer: total(p.captured_usd for p in rows) for customer, rows in paid.items()}
    refunds = grouped(landed.refunds, lambda refund: refund["payment"].customer)
    disputes = grouped(landed.disputes, lambda dispute: dispute["payment"].customer)
    segments: dict[tuple[str, Any], str] = {}
    for rows in grouped([c for c in paid if c[1] is not None], lambda customer: customer[0]).values():

        def fifths(values: dict[Any, Any], members: list[Any]) -> dict[Any, int]:
            """The fifth from below that each member lies in; equals lie in one."""
            ordered = sorted(values[member] for member in members)
            return {member: 1 + 5 * ordered.index(values[member]) // len(members) for member in members}

        recency = fifths({customer: max(p.day for p in paid[customer]) for customer in rows}, rows)
        frequency = fifths({customer: len(paid[customer]) for customer in rows}, rows)
        monetary = fifths(money, rows)
        for customer in rows:
            segments[customer] = _segment(recency[customer], frequency[customer], monetary[customer])

    def value(customer: Any) -> int:
        lost = [row["usd"] for row in disputes.get(customer, []) if row["status"] == "lost"]
        return money.get(customer, 0) - total(row["usd"] for row in refunds.get(customer, [])) - total(lost)

    everything = sum(value(customer) for customer in known)
    answer = []
    for segment, rows in grouped(known, lambda customer: segments.get(customer, "none")).items():
        worth = sum(value(customer) for customer in rows)
        answer.append(
            {
                "rfm_segment": segment,
                "customer_count": len(rows),
                "customers_basis_points": basis_points(len(rows), len(known)),
                "paid_count": sum(len(paid.get(customer, [])) for customer in rows),
                "refund_count": sum(len(refunds.get(customer, [])) for customer in rows),
                "dispute_count": sum(len(disputes.get(customer, [])) for customer in rows),
                "value_usd_minor": worth,
                "value_basis_points": basis_points(worth, everything),
                "value_per_customer_usd_minor": ratio(worth, len(rows)),
            }
        )
    return in_order(answer, "-value_usd_minor", "rfm_segment")


def _segment(recency: int, frequency: int, monetary: int) -> str:
    if recency >= 3 and frequency >= 4:
        return "champion" if recency >= 4 and monetary >= 4 else "loyal"
    if recency >= 3:
        return "promising" if recency >= 4 else "regular"
    return "slipping" if max(frequency, monetary) >= 4 else "dormant"


def cohort_retention_curve(landed: Landed) -> Answer:
    paid = [p for p in landed.payments if p.is_captured and p.customer_id is not None]
    cohorts: dict[Any, list[list[Payment]]] = grouped(
        grouped(paid, lambda p: p.customer).values(), lambda rows: min(month(row.day) for row in rows)
    )
    last = max(landed.as_of.date(), *(p.day for p in paid))
    answer: Answer = []
    for first, customers in cohorts.items():
        so_far = 0
        for age in range(12 * (last.year - first.year) + last.month - first.month + 1):
            years, months = divmod(first.month - 1 + age, 12)
            then = first.replace(year=first.year + years, month=months + 1)
            active = [
                [row for row in rows if month(row.day) == then]
                for rows in customers
                if any(month(row.day) == then for row in rows)
            ]
            captured = total(row.captured_usd for rows in active for row in rows)
            so_far += captured
            answer.append(
                {
                    "cohort_month_on": first,
                    "months_since": age,
                    "customer_count": len(customers),
                    "active_customer_count": len(active),
                    "retention_basis_points": basis_points(len(active), len(customers)),
                    "captured_usd_minor": captured,
                    "captured_per_customer_so_far_usd_minor": ratio(so_far, len(customers)),
                }
            )
    return answer


def customers_who_moved(landed: Landed) -> Answer:
    paid = grouped([p for p in landed.payments if p.is_captured], lambda p: p.customer)
    answer: Answer = []
    landings = versions_landed("oltp", "customers", order="_position")
    for customer, versions in grouped(landings, lambda row: (row["merchant_id"], row["customer_id"])).items():
        stays = [versions[0]]
        stays += [after for before, after in pairwise(versions) if after["country"] != before["country"]]
        borders = [row["_source_at"] for row in stays[1:]]
        # A payment belongs to the stay before the first border that lies behind it.
        spent = Counter[int]()
        counts = Counter[int]()
        for payment in paid.get(customer, []):
            stay = sum(border <= payment.paid_at for border in borders)
            spent[stay] += payment.captured_usd or 0
            counts[stay] += 1
        answer += [
            {
                "merchant_id": customer[0],
                "customer_id": customer[1],
                "moved_at": border,
                "country_before": stays[number]["country"],
                "country_after": stays[number + 1]["country"],
                "payment_count_before": counts[number],
                "payment_count_after": counts[number + 1],
                "captured_before_usd_minor": spent[number],
                "captured_after_usd_minor": spent[number + 1],
            }
            for number, border in enumerate(borders)
        ]
    return in_order(answer, "moved_at", "merchant_id", "customer_id")
