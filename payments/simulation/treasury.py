"""What merchants do with their balances: payouts, transfers, top-ups, currency conversions, manual adjustments.

Money arrives at four in the morning (UTC); at five, day after day, merchants top up what they owe, platforms transfer,
foreign money is converted, and what is then available is paid out. So each step follows from the balance before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal

import numpy as np

from payments.simulation.arrays import Flags, Ints
from payments.simulation.movements import TYPES, BalanceTransactions, Movements
from payments.simulation.plan import DAY, HOUR, SECOND, Plan
from payments.simulation.platforms import platforms_of
from payments.simulation.population import Merchants
from payments.simulation.postings import Leg, Postings
from payments.simulation.streams import Streams
from payments.simulation.world import MONIES

PAYOUT_STATUSES = ("pending", "in_transit", "paid", "failed")
PAYOUT_FAILURES = ("account_closed", "bank_account_restricted", "could_not_process", "no_account")
TOPUP_STATUSES = ("pending", "succeeded", "failed", "canceled", "reversed")
DAILY, WEEKLY, BY_HAND = range(3)
_PAYOUT_PENDING, _IN_TRANSIT, _PAID, _FAILED = range(len(PAYOUT_STATUSES))
_TOPUP_PENDING, _SUCCEEDED, _TOPUP_FAILED, _TOPUP_CANCELED, _REVERSED = range(len(TOPUP_STATUSES))
_FAILING_SHARE = 0.015
_CONVERTING_SHARE, _CONVERSION_BASIS_POINTS = 0.6, 100
_PLATFORM_TOPUP = [round(500 * money.per_dollar) * 10**money.exponent for money in MONIES]
_STARTS_AT, _PAYS_AFTER = 5 * HOUR, 20 * SECOND
_RATE_STEP = Decimal(1).scaleb(-10)
_PER_DOLLAR = [Decimal(str(money.per_dollar)) for money in MONIES]
# Two operators: one proposes what the other decides.
OPERATORS = ("mara.lindqvist", "tomasz.zielinski")
_CORRECTIONS = ((0, 2_500, "goodwill credit after a delayed settlement"), (2, -1_800, "fee charged too low in a test"))


@dataclass(frozen=True)
class Payouts:
    """One row a payout, in order of time. `paid` and `failed` are -1 where that has not happened; it can be both."""

    merchant: Ints
    money: Ints
    amount: Ints
    is_automatic: Flags
    created: Ints
    in_transit: Ints
    paid: Ints
    failed: Ints
    failure: Ints

    @property
    def status(self) -> Ints:
        """The status at the end of the history, counting in PAYOUT_STATUSES."""
        under_way = np.where(self.in_transit >= 0, _IN_TRANSIT, _PAYOUT_PENDING)
        status: Ints = np.where(self.failed >= 0, _FAILED, np.where(self.paid >= 0, _PAID, under_way))
        return status


@dataclass(frozen=True)
class Transfers:
    """One row a transfer between two merchants, in order of time; `reversed` is -1 unless it was taken back."""

    merchant: Ints
    destination: Ints
    money: Ints
    amount: Ints
    created: Ints
    reversed: Ints


@dataclass(frozen=True)
class Topups:
    """One row a top-up, in order of time; `reversed` is -1 unless it was taken back."""

    merchant: Ints
    money: Ints
    amount: Ints
    status: Ints
    created: Ints
    reversed: Ints


@dataclass(frozen=True)
class Conversions:
    """One row a conversion, in order of time: amounts in minor units of their currencies, the fee in the second's."""

    merchant: Ints
    from_money: Ints
    from_amount: Ints
    to_money: Ints
    to_amount: Ints
    fee: Ints
    rate: Sequence[Decimal]
    created: Ints


@dataclass(frozen=True)
class Adjustments:
    """One row a manual correction that was proposed by one operator and approved by another."""

    merchant: Ints
    money: Ints
    amount: Ints
    reason: Sequence[str]
    created: Ints
    decided: Ints


@dataclass(frozen=True)
class Treasury:
    """All of it."""

    payouts: Payouts
    transfers: Transfers
    topups: Topups
    conversions: Conversions
    adjustments: Adjustments


def adjust(plan: Plan, merchants: Merchants) -> Adjustments:
    """Return the few corrections that operators made by hand."""
    chosen = [entry for entry in _CORRECTIONS if entry[0] < len(merchants.money)] if plan.days > 1 else []
    merchant = np.array([row for row, _, _ in chosen], np.int64)
    day = plan.start_moment + (plan.days // 2) * DAY
    created = day + 9 * HOUR + np.arange(len(chosen)) * HOUR
    return Adjustments(
        merchant=merchant,
        money=merchants.money[merchant],
        amount=np.array([amount for _, amount, _ in chosen], np.int64),
        reason=[reason for _, _, reason in chosen],
        created=created,
        decided=created + HOUR // 2,
    )


@dataclass
class _Rows:
    """Rows that are found one after another."""

    columns: int
    rows: list[tuple[int, ...]] = field(default_factory=list)

    def array(self) -> Ints:
        """Return the columns as rows of one array."""
        return np.array(self.rows, np.int64).reshape(-1, self.columns).T


def run_treasury(
    streams: Streams, plan: Plan, merchants: Merchants, movements: Sequence[Movements], made: Adjustments
) -> Treasury:
    """Go through the days of a history, given all other movements of balances."""
    return _Days(streams, plan, merchants).run([*movements, adjustment_movements(made)], made)


class _Days:
    """The balances of all merchants and currencies from one day to the next."""

    def __init__(self, streams: Streams, plan: Plan, merchants: Merchants) -> None:
        self.plan, self.merchants, self.platform = plan, merchants, platforms_of(merchants)
        self.generator = streams.stream("treasury")
        self.fx_generator = streams.stream("exchange")
        count = len(merchants.money)
        by_hand = streams.stream("payout schedules").random(count) < 0.05
        self.schedule = np.where(by_hand, BY_HAND, np.where(np.arange(count) < count // 5, DAILY, WEEKLY))
        self.payouts, self.transfers, self.topups, self.conversions = _Rows(9), _Rows(6), _Rows(6), _Rows(7)
        self.rates: list[Decimal] = []

    def run(self, movements: Sequence[Movements], made: Adjustments) -> Treasury:
        """Return what happens on all days."""
        plan = self.plan
        self._prepare(movements)
        first_day = plan.start_moment // DAY
        for day in range(plan.days):
            self.start = plan.start_moment + day * DAY + _STARTS_AT
            self.weekday = (first_day + day + 3) % 7  # 1970-01-01 was a Thursday
            is_first_of_month = np.datetime64(first_day + day, "D").astype("datetime64[M]").astype("datetime64[D]")
            self.is_first_of_month = is_first_of_month == np.datetime64(first_day + day, "D")
            self.balance += self.before[:, day] + self.returning[:, day]
            self._take_back(day)
            if self.weekday == 2:
                self._top_up(day)
            if self.weekday == 0:
                self._transfer(day)
            self._convert()
            self.balance += self.between[:, day]
            self._pay_out(day)
        merchant, from_money, from_amount, to_money, to_amount, fee, created = self.conversions.array()
        return Treasury(
            payouts=_payouts(self.payouts.array()),
            transfers=Transfers(*self.transfers.array()),
            topups=Topups(*self.topups.array()),
            conversions=Conversions(merchant, from_money, from_amount, to_money, to_amount, fee, self.rates, created),
            adjustments=made,
        )

    def _prepare(self, movements: Sequence[Movements]) -> None:
        """Sum the given movements by merchant, currency and the day on which they can be paid out."""
        plan, monies = self.plan, len(MONIES)
        merchant = np.concatenate([group.merchant for group in movements])
        money = np.concatenate([group.money for group in movements])
        net = np.concatenate([group.net for group in movements])
        available = np.concatenate([group.available for group in movements])
        homes = np.arange(len(self.merchants.money)) * monies + self.merchants.money
        keys, place = np.unique(np.concatenate([merchant * monies + money, homes]), return_inverse=True)
        self.merchant, self.money = keys // monies, keys % monies
        self.home = place[len(merchant) :]  # where each merchant has its own currency
        place = place[: len(merchant)]

        pays_at = plan.start_moment + np.arange(plan.days) * DAY + _STARTS_AT + _PAYS_AFTER
        day = np.searchsorted(pays_at, available)
        counts = day < plan.days
        is_before = available <= pays_at[np.minimum(day, plan.days - 1)] - _PAYS_AFTER
        self.before, self.between = (np.zeros((len(keys), plan.days), np.int64) for _ in range(2))
        for sums, chosen in ((self.before, counts & is_before), (self.between, counts & ~is_before)):
            np.add.at(sums, (place[chosen], day[chosen]), net[chosen])
        # What comes back later: failed payouts.
        self.returning = np.zeros((len(keys), plan.days + 8), np.int64)
        self.balance = np.zeros(len(keys), np.int64)
        self.due_back: dict[int, list[tuple[str, int]]] = {}
        is_active = self.merchants.status[self.merchant] == 0
        is_foreign = self.money != self.merchants.money[self.merchant]
        # Foreign money is paid out as it is by some, and converted once a week by the others.
        self.converts = is_active & is_foreign & (self.fx_generator.random(len(keys)) < _CONVERTING_SHARE)
        self.pays_out = is_active & (self.schedule[self.merchant] != BY_HAND) & ~self.converts
        self.pays_by_hand = is_active & (self.schedule[self.merchant] == BY_HAND)

    def _take_back(self, day: int) -> None:
        """Reverse the transfers and top-ups that are due to be."""
        for kind, row in self.due_back.get(day, []):
            rows = (self.transfers if kind == "transfer" else self.topups).rows
            moment = self.start + SECOND
            if kind == "topup":
                merchant, _, amount, _, created, _ = rows[row]
                self.balance[self.home[merchant]] -= amount
                rows[row] = (*rows[row][:3], _REVERSED, created, moment)
                continue
            merchant, destination, _, amount, _, _ = rows[row]
            if self.balance[self.home[destination]] >= amount:
                self.balance[self.home[destination]] -= amount
                self.balance[self.home[merchant]] += amount
                rows[row] = (*rows[row][:5], moment)

    def _top_up(self, day: int) -> None:
        """Let merchants who owe, and platforms that will transfer, add money; some of it does not arrive."""
        balance = self.balance[self.home]
        owes, is_willing = balance < 0, self.generator.random(len(balance)) < 0.4
        is_platform = np.isin(np.arange(len(balance)), self.platform[self.platform >= 0])
        for merchant in np.flatnonzero((owes | is_platform) & is_willing).tolist():
            owed = max(-int(balance[merchant]), 0)
            planned = _PLATFORM_TOPUP[self.merchants.money[merchant]] if is_platform[merchant] else 0
            amount = owed // 1000 * 1000 + 1000 + planned
            chance = self.generator.random()
            is_last = day >= self.plan.days - 2
            status = _TOPUP_PENDING if is_last else _TOPUP_FAILED if chance < 0.08 else _SUCCEEDED
            status = _TOPUP_CANCELED if not is_last and 0.08 <= chance < 0.12 else status
            if status == _SUCCEEDED:
                self.balance[self.home[merchant]] += amount
                if chance > 0.9:
                    self._later("topup", day + 3, len(self.topups.rows))
            money = int(self.merchants.money[merchant])
            self.topups.rows.append((merchant, money, amount, status, self.start + 2 * SECOND, -1))

    def _transfer(self, day: int) -> None:
        """Let platforms share a part of what they have with a few of their merchants."""
        for platform in np.unique(self.platform[self.platform >= 0]).tolist():
            connected = np.flatnonzero(self.platform == platform)
            for destination in self.generator.permutation(connected)[:3].tolist():
                amount = int(self.balance[self.home[platform]]) * int(self.generator.integers(2, 9)) // 100
                if amount < 100:
                    continue
                if self.generator.random() < 0.12:
                    self._later("transfer", day + 1, len(self.transfers.rows))
                self.balance[self.home[platform]] -= amount
                self.balance[self.home[destination]] += amount
                money = int(self.merchants.money[platform])
                moment = self.start + 3 * SECOND
                self.transfers.rows.append((platform, destination, money, amount, moment, -1))

    def _later(self, kind: str, day: int, row: int) -> None:
        self.due_back.setdefault(day, []).append((kind, row))

    def _convert(self) -> None:
        """Convert what is available in foreign money; fractions of a minor unit stay with the platform."""
        is_its_day = self.merchant % 5 == self.weekday
        for pair in np.flatnonzero(self.converts & is_its_day & (self.balance > 0)).tolist():
            merchant, from_money = int(self.merchant[pair]), int(self.money[pair])
            to_money = int(self.merchants.money[merchant])
            drift = Decimal(int(self.fx_generator.integers(-200, 201))) / 10_000
            rate = (_PER_DOLLAR[to_money] / _PER_DOLLAR[from_money] * (1 + drift)).quantize(_RATE_STEP, ROUND_HALF_EVEN)
            amount = int(self.balance[pair])
            shift = MONIES[to_money].exponent - MONIES[from_money].exponent
            gross = int(amount * rate.scaleb(shift))
            fee = -(-gross * _CONVERSION_BASIS_POINTS // 10_000)
            if gross <= 0:
                continue
            self.balance[pair] -= amount
            self.balance[self.home[merchant]] += gross - fee
            self.rates.append(rate)
            moment = self.start + 4 * SECOND
            self.conversions.rows.append((merchant, from_money, amount, to_money, gross, fee, moment))

    def _pay_out(self, day: int) -> None:
        """Pay out all that is available where it is the merchant's day, or a part where the merchant asks for it."""
        schedule = self.schedule[self.merchant]
        is_its_day = (schedule == DAILY) | (self.merchant % 5 == self.weekday)
        automatic = np.flatnonzero(self.pays_out & is_its_day & (self.balance > 0))
        asked = np.flatnonzero(self.pays_by_hand & self.is_first_of_month & (self.balance > 100))
        pairs = np.concatenate([automatic, asked])
        is_automatic = np.arange(len(pairs)) < len(automatic)
        amounts = np.where(is_automatic, self.balance[pairs], self.balance[pairs] * 4 // 5)
        self.balance[pairs] -= amounts

        created, end = self.start + _PAYS_AFTER, self.plan.end_moment
        noon = created // DAY * DAY + 12 * HOUR
        chance = self.generator.random(len(pairs))
        late = chance < 0.3 * _FAILING_SHARE
        failed = np.where(late, noon + 4 * DAY, noon + 2 * DAY)
        failed = np.where((chance < _FAILING_SHARE) & (failed < end), failed, -1)
        paid = np.where((late | (failed < 0)) & (noon + 2 * DAY < end), noon + 2 * DAY, -1)
        in_transit = np.full(len(pairs), noon + DAY // 2 if noon + DAY // 2 < end else -1)
        came_back = np.flatnonzero(failed >= 0)
        np.add.at(self.returning, (pairs[came_back], day + np.where(late, 5, 3)[came_back]), amounts[came_back])
        failure = self.generator.integers(0, len(PAYOUT_FAILURES), len(pairs))
        rows = np.stack(
            [
                self.merchant[pairs],
                self.money[pairs],
                amounts,
                is_automatic,
                np.full(len(pairs), created),
                in_transit,
                paid,
                failed,
                np.where(failed >= 0, failure, -1),
            ],
            axis=1,
        )
        self.payouts.rows.extend(map(tuple, rows.tolist()))


def _payouts(columns: Ints) -> Payouts:
    merchant, money, amount, is_automatic, created, in_transit, paid, failed, failure = columns
    return Payouts(merchant, money, amount, is_automatic.astype(bool), created, in_transit, paid, failed, failure)


def adjustment_movements(made: Adjustments) -> Movements:
    """Return what corrections change balances by."""
    rows = np.arange(len(made.amount))
    return Movements("adjustment", "adj", made.merchant, made.money, rows, made.amount, made.decided, made.decided)


def treasury_movements(treasury: Treasury) -> list[Movements]:
    """Return what all of it changes balances by."""
    payouts, transfers, topups, fx = treasury.payouts, treasury.transfers, treasury.topups, treasury.conversions
    failed = np.flatnonzero(payouts.failed >= 0)
    back, arrived = np.flatnonzero(transfers.reversed >= 0), np.flatnonzero(_has_arrived(topups))
    undone = np.flatnonzero(topups.reversed >= 0)

    def movements(kind: str, space: str, rows: Ints, columns: tuple[Ints, Ints, Ints, Ints]) -> Movements:
        merchant, money, amount, at = (column[rows] for column in columns)
        return Movements(kind, space, merchant, money, rows, amount, at, at)

    def all_of(values: Ints) -> Ints:
        return np.arange(len(values))

    sent, paid_out = all_of(transfers.amount), all_of(payouts.amount)
    return [
        adjustment_movements(treasury.adjustments),
        movements("payout", "po", paid_out, (payouts.merchant, payouts.money, -payouts.amount, payouts.created)),
        movements("payout_failure", "po", failed, (payouts.merchant, payouts.money, payouts.amount, payouts.failed)),
        movements("transfer", "tr", sent, (transfers.merchant, transfers.money, -transfers.amount, transfers.created)),
        movements(
            "transfer_in", "tr", sent, (transfers.destination, transfers.money, transfers.amount, transfers.created)
        ),
        movements("reversal", "tr", back, (transfers.merchant, transfers.money, transfers.amount, transfers.reversed)),
        movements(
            "reversal", "tr", back, (transfers.destination, transfers.money, -transfers.amount, transfers.reversed)
        ),
        movements("topup", "tu", arrived, (topups.merchant, topups.money, topups.amount, topups.created)),
        movements("reversal", "tu", undone, (topups.merchant, topups.money, -topups.amount, topups.reversed)),
        movements("conversion_out", "fx", all_of(fx.fee), (fx.merchant, fx.from_money, -fx.from_amount, fx.created)),
        Movements(
            type="conversion_in",
            space="fx",
            merchant=fx.merchant,
            money=fx.to_money,
            source=all_of(fx.fee),
            amount=fx.to_amount,
            created=fx.created,
            available=fx.created,
            fees={"conversion_fee": fx.fee},
        ),
    ]


def treasury_postings(treasury: Treasury, posted_before: int) -> list[Postings]:
    """Return the postings of all of it; `posted_before` is how many postings stand before these in the whole."""
    payouts, transfers, topups, fx = treasury.payouts, treasury.transfers, treasury.topups, treasury.conversions
    made = treasury.adjustments
    back, arrived = np.flatnonzero(transfers.reversed >= 0), np.flatnonzero(_has_arrived(topups))
    undone = np.flatnonzero(topups.reversed >= 0)
    sent = np.arange(len(transfers.amount))
    send = (
        Leg("merchant_available", True, transfers.money, transfers.amount),
        Leg("transfer_clearing", False, transfers.money, transfers.amount),
    )
    receive = _opposite(send, sent)
    arrive = (
        Leg("bank", True, topups.money[arrived], topups.amount[arrived]),
        Leg("merchant_available", False, topups.money[arrived], topups.amount[arrived]),
    )
    # Postings that are reversed come first: their places are known then.
    first = posted_before + len(sent), posted_before + 2 * len(sent)
    place_of_topup = np.full(len(topups.amount), -1, np.int64)
    place_of_topup[arrived] = first[1] + np.arange(len(arrived))
    positive, negative = np.flatnonzero(made.amount > 0), np.flatnonzero(made.amount < 0)
    return [
        Postings("transfer", "tr", transfers.merchant, sent, transfers.created, send),
        Postings("transfer_in", "tr", transfers.destination, sent, transfers.created, receive),
        Postings("topup", "tu", topups.merchant[arrived], arrived, topups.created[arrived], arrive),
        Postings(
            "reversal",
            "lt",
            transfers.merchant[back],
            posted_before + back,
            transfers.reversed[back],
            _opposite(send, back),
        ),
        Postings(
            "reversal",
            "lt",
            transfers.destination[back],
            first[0] + back,
            transfers.reversed[back],
            _opposite(receive, back),
        ),
        Postings(
            "reversal",
            "lt",
            topups.merchant[undone],
            place_of_topup[undone],
            topups.reversed[undone],
            (
                Leg("bank", False, topups.money[undone], topups.amount[undone]),
                Leg("merchant_available", True, topups.money[undone], topups.amount[undone]),
            ),
        ),
        Postings(
            "fx",
            "fx",
            fx.merchant,
            np.arange(len(fx.fee)),
            fx.created,
            (
                Leg("merchant_available", True, fx.from_money, fx.from_amount),
                Leg("fx_liquidity", False, fx.from_money, fx.from_amount),
                Leg("fx_liquidity", True, fx.to_money, fx.to_amount),
                Leg("merchant_available", False, fx.to_money, fx.to_amount - fx.fee),
                Leg("fee_revenue", False, fx.to_money, fx.fee),
            ),
        ),
        _adjustment(made, positive, "suspense", "merchant_available"),
        _adjustment(made, negative, "merchant_available", "suspense"),
        *_payout_postings(payouts),
    ]


def _payout_postings(payouts: Payouts) -> list[Postings]:
    was_paid = payouts.paid >= 0

    def posting(kind: str, is_chosen: Flags, moment: Ints, debit: str, credit: str) -> Postings:
        rows = np.flatnonzero(is_chosen)
        money, amount = payouts.money[rows], payouts.amount[rows]
        legs = (Leg(debit, True, money, amount), Leg(credit, False, money, amount))
        return Postings(kind, "po", payouts.merchant[rows], rows, moment[rows], legs)

    failed = payouts.failed >= 0
    return [
        posting("payout", payouts.created >= 0, payouts.created, "merchant_available", "payout_in_transit"),
        posting("payout_paid", was_paid, payouts.paid, "payout_in_transit", "bank"),
        posting("payout_failed", failed & ~was_paid, payouts.failed, "payout_in_transit", "merchant_available"),
        posting("payout_failed", failed & was_paid, payouts.failed, "bank", "merchant_available"),
    ]


def _adjustment(made: Adjustments, rows: Ints, debit: str, credit: str) -> Postings:
    money, amount = made.money[rows], np.abs(made.amount[rows])
    legs = (Leg(debit, True, money, amount), Leg(credit, False, money, amount))
    return Postings("adjustment", "adj", made.merchant[rows], rows, made.decided[rows], legs)


def _opposite(legs: Sequence[Leg], rows: Ints) -> tuple[Leg, ...]:
    return tuple(Leg(leg.code, not leg.is_debit, leg.money[rows], leg.amount[rows]) for leg in legs)


def _has_arrived(topups: Topups) -> Flags:
    return np.isin(topups.status, [_SUCCEEDED, _REVERSED])


def paid_out_by(balance: BalanceTransactions, payouts: Payouts) -> Ints:
    """Return which automatic payout pays out each balance transaction, -1 for none.

    It is the first one of its merchant and currency after the transaction became available; automatic payouts pay out
    everything but themselves.
    """
    pairs = _pair(payouts.merchant, payouts.money)
    automatic = np.flatnonzero(payouts.is_automatic)
    automatic = automatic[np.lexsort((payouts.created[automatic], pairs[automatic]))]
    if not len(automatic):
        return np.full(len(balance.type), -1, np.int64)
    # Pairs are laid one after another on one line of time, far enough apart.
    known, start, apart = np.unique(pairs[automatic]), payouts.created.min(), np.int64(1) << 50
    line = np.searchsorted(known, pairs[automatic]) * apart + payouts.created[automatic] - start
    pair = _pair(balance.merchant, balance.money)
    rank = np.minimum(np.searchsorted(known, pair), len(known) - 1)
    place = np.minimum(np.searchsorted(line, rank * apart + balance.available - start), len(automatic) - 1)
    candidate = automatic[place]
    is_paid_out = (pairs[candidate] == pair) & (payouts.created[candidate] >= balance.available)
    is_payout = balance.type == TYPES.index("payout")
    is_itself = is_payout & payouts.is_automatic[np.where(is_payout, balance.source, 0)]
    owner: Ints = np.where(is_paid_out & ~is_itself, candidate, -1)
    return owner


def _pair(merchant: Ints, money: Ints) -> Ints:
    return merchant * len(MONIES) + money
