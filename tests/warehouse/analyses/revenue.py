"""Revenue: what comes in, from whom, and at which rates."""

from collections import defaultdict
from datetime import date, timedelta
from fractions import Fraction
from itertools import pairwise

from tests.warehouse.analyses.landed import (
    NOT_PAID,
    Answer,
    Landed,
    basis_points,
    day,
    grouped,
    in_order,
    month,
    ratio,
    total,
)


def net_revenue_by_month(landed: Landed) -> Answer:
    captured, counts = defaultdict[date, int](int), defaultdict[date, int](int)
    refunded, disputed = defaultdict[date, int](int), defaultdict[date, int](int)
    for payment in landed.payments:
        captured[month(payment.day)] += payment.captured_usd or 0
        counts[month(payment.day)] += payment.status not in NOT_PAID
    for refund in landed.refunds:
        refunded[month(day(refund["created_at"]))] += refund["usd"]
    for dispute in landed.disputes:
        if dispute["status"] != "won":
            disputed[month(day(dispute["created_at"]))] += dispute["usd"]
    answer: Answer = []
    previous = None
    for first in sorted({*captured, *refunded, *disputed}):
        net = captured[first] - refunded[first] - disputed[first]
        answer.append(
            {
                "month_start_on": first,
                "captured_count": counts[first],
                "captured_usd_minor": captured[first],
                "refunded_usd_minor": refunded[first],
                "disputed_usd_minor": disputed[first],
                "net_usd_minor": net,
                "change_usd_minor": None if previous is None else net - previous,
                "growth_basis_points": None if previous is None else basis_points(net - previous, max(previous, 0)),
            }
        )
        previous = net
    return answer


def daily_revenue_smoothed(landed: Landed) -> Answer:
    moved = [payment.day for payment in landed.payments]
    moved += [day(refund["created_at"]) for refund in landed.refunds]
    moved += [day(dispute["created_at"]) for dispute in landed.disputes if dispute["status"] != "won"]
    by_day = grouped(landed.payments, lambda payment: payment.day)
    days = [min(moved) + timedelta(days=n) for n in range((max(moved) - min(moved)).days + 1)]
    sums = [total(payment.captured_usd for payment in by_day.get(on, [])) for on in days]
    return [
        {
            "date_day": on,
            "captured_count": sum(payment.status not in NOT_PAID for payment in by_day.get(on, [])),
            "captured_usd_minor": sums[place],
            "mean_of_7_days_usd_minor": ratio(sum(sums[place - 6 : place + 1]), 7) if place >= 6 else None,
            "mean_of_28_days_usd_minor": ratio(sum(sums[place - 27 : place + 1]), 28) if place >= 27 else None,
        }
        for place, on in enumerate(days)
    ]


def monthly_revenue_by_vertical(landed: Landed) -> Answer:
    def vertical(merchant_id: str) -> str:
        return str(landed.categories.get(landed.mcc_of(merchant_id), {}).get("vertical", "unknown"))

    movements = [
        (month(p.day), vertical(p.merchant_id), int(p.status not in NOT_PAID), p.captured_usd, 0, 0)
        for p in landed.payments
    ]
    movements += [
        (month(day(row["created_at"])), vertical(row["merchant_id"]), 0, 0, row["usd"], 0) for row in landed.refunds
    ]
    movements += [
        (month(day(row["created_at"])), vertical(row["merchant_id"]), 0, 0, 0, row["usd"])
        for row in landed.disputes
        if row["status"] != "won"
    ]
    return [
        {
            "month_start_on": first,
            "vertical": name,
            "captured_count": sum(row[2] for row in rows),
            "captured_usd_minor": total(row[3] for row in rows),
            "refunded_usd_minor": total(row[4] for row in rows),
            "disputed_usd_minor": total(row[5] for row in rows),
        }
        for (first, name), rows in grouped(movements, lambda row: row[:2]).items()
    ]


def take_rate_by_merchant_category(landed: Landed) -> Answer:
    paid = [payment for payment in landed.payments if payment.is_captured]
    answer = []
    for (mcc, currency), rows in grouped(paid, lambda p: (landed.mcc_of(p.merchant_id), p.currency)).items():
        category = landed.categories.get(mcc, {})
        captured, fee = sum(row.captured for row in rows), sum(row.fee for row in rows)
        answer.append(
            {
                "vertical": category.get("vertical", "unknown"),
                "mcc": mcc,
                "category_name": category.get("category_name"),
                "currency": currency,
                "merchant_count": len({row.merchant_id for row in rows}),
                "captured_count": len(rows),
                "captured_amount_minor": captured,
                "fee_minor": fee,
                "take_rate_basis_points": basis_points(fee, captured),
            }
        )
    return in_order(answer, "vertical", "mcc", "currency")


def merchants_by_share_of_revenue(landed: Landed) -> Answer:
    paid = grouped([p for p in landed.payments if (p.captured_usd or 0) > 0], lambda p: p.merchant_id)
    sums = {merchant: total(p.captured_usd for p in rows) for merchant, rows in paid.items()}
    everything, running = sum(sums.values()), 0
    answer = []
    for place, merchant in enumerate(sorted(sums, key=lambda merchant: (-sums[merchant], merchant)), start=1):
        before, running = Fraction(running, everything), running + sums[merchant]
        answer.append(
            {
                "place": place,
                "merchant_id": merchant,
                "business_name": landed.name_of(merchant),
                "captured_count": len(paid[merchant]),
                "captured_usd_minor": sums[merchant],
                "share_basis_points": basis_points(sums[merchant], everything),
                "running_share_basis_points": basis_points(running, everything),
                "revenue_class": "A" if before < Fraction(8, 10) else "B" if before < Fraction(95, 100) else "C",
            }
        )
    return answer


def selling_streaks_and_silences(landed: Landed) -> Answer:
    answer = []
    for merchant, rows in grouped([p for p in landed.payments if p.is_captured], lambda p: p.merchant_id).items():
        days = sorted({row.day for row in rows})
        streaks: list[list[date]] = []
        for on in days:
            if streaks and on - streaks[-1][-1] == timedelta(days=1):
                streaks[-1].append(on)
            else:
                streaks.append([on])
        longest = max(streaks, key=len)  # the first of equals
        answer.append(
            {
                "merchant_id": merchant,
                "business_name": landed.name_of(merchant),
                "selling_day_count": len(days),
                "streak_count": len(streaks),
                "longest_streak_days": len(longest),
                "longest_streak_from": longest[0],
                "longest_silence_days": max(
                    ((later[0] - earlier[-1]).days - 1 for earlier, later in pairwise(streaks)),
                    default=0,
                ),
                "last_sale_on": days[-1],
            }
        )
    return in_order(answer, "-longest_silence_days", "merchant_id")


def fx_effect_at_month_end(landed: Landed) -> Answer:
    abroad = [p for p in landed.payments if p.is_captured and p.currency != "USD" and p.captured_usd is not None]
    answer = []
    for (first, currency), rows in grouped(abroad, lambda p: (month(p.day), p.currency)).items():
        following = month(first + timedelta(days=31))
        captured, booked = sum(row.captured for row in rows), total(row.captured_usd for row in rows)
        revalued = landed.usd(captured, currency, following)
        assert revalued is not None
        answer.append(
            {
                "month_start_on": first,
                "currency": currency,
                "captured_count": len(rows),
                "captured_amount_minor": captured,
                "rate_of_next_month": landed.rate(currency, following),
                "booked_usd_minor": booked,
                "revalued_usd_minor": revalued,
                "effect_usd_minor": revalued - booked,
                "effect_basis_points": basis_points(revalued - booked, booked),
            }
        )
    return answer
