"""Subscriptions: what some merchants sell by the month, who subscribes, and which payments pay for which month.

A subscription takes over payments that its customer makes anyway: they move to the days on which it is billed, for the
price of the plan. The first one that fails for good ends the series. So the number of payments stays what it was.
"""

from dataclasses import dataclass, replace

import numpy as np

from payments.simulation.arrays import Flags, Ints, expand, offsets, pick
from payments.simulation.plan import DAY, HOUR, Plan
from payments.simulation.population import BANK_DEBIT, Population
from payments.simulation.purchases import SUCCEEDED, Charges, Intents, in_minor_units
from payments.simulation.streams import Streams
from payments.simulation.world import CATEGORIES

TIERS = ("Starter", "Team", "Business")
COUPON_DURATIONS = ("once", "repeating", "forever")
ONCE, REPEATING, FOREVER = range(len(COUPON_DURATIONS))
REPEATING_MONTHS = 3
TRIAL = 14 * DAY
_TIER_LEVELS = np.array([0.6, 1.0, 2.0])
_MONIES = 16
_SUBSCRIBING_SHARE, _TRIALING_SHARE, _ENDING_SHARE, _TRIAL_SHARE, _COUPON_SHARE = 0.6, 0.02, 0.25, 0.25, 0.18
_LONGEST_OFFSET = 27 * DAY + 20 * HOUR


@dataclass(frozen=True)
class Catalogue:
    """Products (three to a merchant), a monthly price for each product and currency in use, and coupons.

    A coupon has basis points or an amount (then of the merchant's currency), the other is -1.
    """

    product_merchant: Ints
    product_tier: Ints
    price_product: Ints
    price_money: Ints
    price_amount: Ints
    coupon_merchant: Ints
    coupon_basis_points: Ints
    coupon_amount: Ints
    coupon_duration: Ints


@dataclass(frozen=True)
class Subscriptions:
    """One row a subscription; `coupon` and `method` are -1 for none, `cycles` is how often it was billed.

    Month m of it begins at `month_start(first_month + m) + offset`. It began at `created`, which is before that where
    it has a trial. `is_ending`: its customer ended it after the last month that was billed.
    """

    customer: Ints
    method: Ints
    price: Ints
    quantity: Ints
    coupon: Ints
    first_month: Ints
    offset: Ints
    cycles: Ints
    created: Ints
    has_trial: Flags
    is_ending: Flags

    def begins(self, rows: Ints, month: Ints) -> Ints:
        """Return when month `month` (from 0) of these subscriptions begins."""
        return month_start(self.first_month[rows] + month) + self.offset[rows]


@dataclass(frozen=True)
class Cycles:
    """One row a month that was billed: subscription, its number from 0, the intent, and the amounts in minor units."""

    subscription: Ints
    number: Ints
    intent: Ints
    subtotal: Ints
    discount: Ints


@dataclass(frozen=True)
class Subscribed:
    """The catalogue, the subscriptions and what was billed of them."""

    catalogue: Catalogue
    subscriptions: Subscriptions
    cycles: Cycles


def month_start(months: Ints) -> Ints:
    """Return the first moment of months that are counted from year 0, in microseconds since 1970."""
    starts: Ints = (months - 1970 * 12).astype("datetime64[M]").astype("datetime64[us]").astype(np.int64)
    return starts


def _month_index(moment: int) -> int:
    return int(np.datetime64(moment, "us").astype("datetime64[M]").astype(np.int64)) + 1970 * 12


def subscribe(
    streams: Streams, plan: Plan, population: Population, payments: tuple[Intents, Charges], kept: int
) -> tuple[Intents, Charges, Subscribed]:
    """Turn payments into billed months; return all payments with those moved and priced anew.

    Args:
        streams: of the history.
        plan: of the history.
        population: of the history.
        payments: intents and charges, in the order of the intents.
        kept: how many leading charges are sure to be kept by the caller; only they are moved.
    """
    intents, charges = payments
    generator = streams.stream("subscriptions")
    catalogue = _catalogue(streams, population)
    sells = _sells(population)
    customers, chosen, order = _series(generator, plan, population, payments, kept)

    # How many months fit, and how many of them the payments of the customer fill, up to the first that fails.
    count = len(customers)
    offset = generator.integers(2 * HOUR, _LONGEST_OFFSET, count)
    low, high = _month_index(plan.start_moment), _month_index(plan.end_moment - 1)
    first = low + (month_start(np.full(count, low)) + offset < plan.start_moment + DAY)
    last = high - (month_start(np.full(count, high)) + offset >= plan.end_moment - 2 * HOUR)
    room = np.maximum(last - first + 1, 0)
    is_ending = (generator.random(count) < _ENDING_SHARE) & (room > 1)
    gap = np.where(is_ending, 1 + (generator.random(count) * (room - 1)).astype(np.int64), 0)
    lengths = np.minimum(chosen, room - gap)
    first = last - gap - lengths + 1

    starts = offsets(chosen)[:-1]
    owner, number = expand(np.maximum(lengths, 0))
    intent = order[starts[owner] + number]
    moment = month_start(first[owner] + number) + offset[owner]
    last_attempt = intents.created.copy()
    np.maximum.at(last_attempt, charges.intent, charges.created)
    fits = moment + (last_attempt - intents.created)[intent] < plan.end_moment
    owner, number, intent, moment = owner[fits], number[fits], intent[fits], moment[fits]
    lengths = np.bincount(owner, minlength=count)

    billed = np.flatnonzero(lengths > 0)
    trialing = _trialing(generator, population, sells, customers[billed])
    subscriptions = _terms(
        streams,
        plan,
        (population, catalogue),
        Subscriptions(
            customer=np.concatenate([customers[billed], trialing]),
            method=np.concatenate([intents.method[order[starts[billed]]], np.full(len(trialing), -1)]),
            price=np.zeros(len(billed) + len(trialing), np.int64),
            quantity=np.ones(len(billed) + len(trialing), np.int64),
            coupon=np.full(len(billed) + len(trialing), -1),
            first_month=np.concatenate([first[billed], np.zeros(len(trialing), np.int64)]),
            offset=np.concatenate([offset[billed], np.zeros(len(trialing), np.int64)]),
            cycles=np.concatenate([lengths[billed], np.zeros(len(trialing), np.int64)]),
            created=np.zeros(len(billed) + len(trialing), np.int64),
            has_trial=np.zeros(len(billed) + len(trialing), bool),
            is_ending=np.concatenate([is_ending[billed], np.zeros(len(trialing), bool)]),
        ),
    )
    place = np.full(count, -1, np.int64)
    place[billed] = np.arange(len(billed))
    subscription = place[owner]
    subtotal, discount = _bill(catalogue, subscriptions, subscription, number)

    created, amount = intents.created.copy(), intents.amount.copy()
    shift = np.zeros(len(created), np.int64)
    shift[intent] = moment - created[intent]
    created[intent], amount[intent] = moment, subtotal - discount
    moved = replace(charges, created=charges.created + shift[charges.intent])
    cycles = Cycles(subscription, number, intent, subtotal, discount)
    return replace(intents, created=created, amount=amount), moved, Subscribed(catalogue, subscriptions, cycles)


def _sells(population: Population) -> Flags:
    """Return which customers are at a merchant who sells subscriptions."""
    merchant = population.customers.merchant
    sells: Flags = np.array([entry.sells_subscriptions for entry in CATEGORIES])[
        population.merchants.category[merchant]
    ]
    return sells


def _catalogue(streams: Streams, population: Population) -> Catalogue:
    generator = streams.stream("catalogue")
    merchants, customers = population.merchants, population.customers
    seller = np.flatnonzero(np.array([entry.sells_subscriptions for entry in CATEGORIES])[merchants.category])
    product_merchant, product_tier = np.repeat(seller, len(TIERS)), np.tile(np.arange(len(TIERS)), len(seller))
    at_seller = np.isin(customers.merchant, seller)
    used = np.unique(customers.merchant[at_seller] * _MONIES + customers.money[at_seller])
    price_merchant = np.repeat(used // _MONIES, len(TIERS))
    tier = np.tile(np.arange(len(TIERS)), len(used))
    medians = np.array([entry.median_dollars for entry in CATEGORIES])[merchants.category[price_merchant]]
    dollars = medians * merchants.price_level[price_merchant] * _TIER_LEVELS[tier]
    money = np.repeat(used % _MONIES, len(TIERS))
    amount = in_minor_units(dollars, money, np.ones(len(money), bool))

    # Each seller has a share off once, a share off for three months, and an amount off once, of its own currency.
    coupon_merchant = np.repeat(seller, 3)
    kind = np.tile(np.arange(3), len(seller))
    half_a_starter = in_minor_units(
        np.array([entry.median_dollars for entry in CATEGORIES])[merchants.category[coupon_merchant]]
        * merchants.price_level[coupon_merchant]
        * _TIER_LEVELS[0]
        / 3,
        merchants.money[coupon_merchant],
        np.zeros(len(coupon_merchant), bool),
    )
    points = generator.integers(2, 9, len(kind)) * 500
    return Catalogue(
        product_merchant=product_merchant,
        product_tier=product_tier,
        price_product=np.searchsorted(seller, price_merchant) * len(TIERS) + tier,
        price_money=money,
        price_amount=amount,
        coupon_merchant=coupon_merchant,
        coupon_basis_points=np.where(kind == 2, -1, points),
        coupon_amount=np.where(kind == 2, half_a_starter, -1),
        coupon_duration=np.where(kind == 1, np.where(generator.random(len(kind)) < 0.3, FOREVER, REPEATING), ONCE),
    )


def _series(
    generator: np.random.Generator,
    plan: Plan,
    population: Population,
    payments: tuple[Intents, Charges],
    kept: int,
) -> tuple[Ints, Ints, Ints]:
    """Return who subscribes, for how many payments at most, and these payments, one customer after another."""
    intents, charges = payments
    instrument = population.methods.instrument[charges.method]
    expiry = population.instruments.expiry_month[instrument]
    # Payments move in time: cards must be valid throughout, and whether a payment failed must be known.
    is_unfit = (population.instruments.kind[instrument] == BANK_DEBIT) | (expiry < plan.end_month)
    is_unfit |= np.arange(len(charges.intent)) >= kept
    fit = _sells(population)[intents.customer]
    fit[charges.intent[is_unfit]] = False
    is_paid = np.zeros(len(intents.created), bool)
    is_paid[charges.intent[charges.status == SUCCEEDED]] = True
    has_attempt = np.zeros(len(intents.created), bool)
    has_attempt[charges.intent] = True

    order = np.flatnonzero(fit & has_attempt)
    order = order[np.lexsort((intents.created[order], intents.customer[order]))]
    customers, start, sizes = np.unique(intents.customer[order], return_index=True, return_counts=True)
    subscribes = generator.random(len(customers)) < np.where(sizes > 1, _SUBSCRIBING_SHARE, _SUBSCRIBING_SHARE / 3)
    place = np.arange(len(order)) - np.repeat(start, sizes)
    until_failure = np.where(is_paid[order], np.iinfo(np.int64).max, place + 1)
    longest = np.minimum(sizes, np.minimum.reduceat(until_failure, start)) if len(start) else sizes
    chosen = subscribes[np.repeat(np.arange(len(sizes)), sizes)] & (place < np.repeat(longest, sizes))
    return customers[subscribes], longest[subscribes], order[chosen]


def _trialing(generator: np.random.Generator, population: Population, sells: Flags, subscribed: Ints) -> Ints:
    """Return customers who are trying a subscription when the history ends."""
    candidates = np.flatnonzero(sells & population.customers.joined_before)
    candidates = candidates[~np.isin(candidates, subscribed)]
    return candidates[generator.random(len(candidates)) < _TRIALING_SHARE]


def _terms(
    streams: Streams, plan: Plan, offer: tuple[Population, Catalogue], subscriptions: Subscriptions
) -> Subscriptions:
    """Draw plan, quantity, coupon and trial of subscriptions."""
    (population, catalogue), generator = offer, streams.stream("subscription terms")
    customers, count = population.customers, len(subscriptions.customer)
    merchant, money = customers.merchant[subscriptions.customer], customers.money[subscriptions.customer]
    tier = pick(generator, np.array([0.5, 0.35, 0.15]), count)
    known = (catalogue.product_merchant[catalogue.price_product] * _MONIES + catalogue.price_money) * len(TIERS)
    known += catalogue.product_tier[catalogue.price_product]
    price = np.searchsorted(known, (merchant * _MONIES + money) * len(TIERS) + tier)
    is_business = np.array([entry.curve == "business" for entry in CATEGORIES])[population.merchants.category[merchant]]
    seats = np.minimum(generator.geometric(0.45, count), 25)

    is_trying = subscriptions.cycles == 0
    first = subscriptions.begins(np.arange(count), np.zeros(count, np.int64))
    has_trial = customers.joined_before[subscriptions.customer] & (first - TRIAL >= plan.start_moment)
    has_trial &= generator.random(count) < _TRIAL_SHARE
    ago = np.minimum((generator.random(count) * (TRIAL - 2 * HOUR)).astype(np.int64), plan.days * DAY - HOUR)
    created = np.where(is_trying, plan.end_moment - HOUR - ago, first - np.where(has_trial, TRIAL, 0))

    kind = generator.integers(0, 3, count)
    coupon = np.searchsorted(catalogue.coupon_merchant, merchant) + kind
    fits = (kind < 2) | (money == population.merchants.money[merchant])
    has_coupon = fits & ~has_trial & ~is_trying & (generator.random(count) < _COUPON_SHARE)
    return replace(
        subscriptions,
        price=price,
        quantity=np.where(is_business, seats, 1),
        coupon=np.where(has_coupon, coupon, -1),
        created=created,
        has_trial=has_trial | is_trying,
    )


def _bill(catalogue: Catalogue, subscriptions: Subscriptions, subscription: Ints, number: Ints) -> tuple[Ints, Ints]:
    """Return subtotal and discount of months; a share is rounded down, and something is always left to pay."""
    subtotal = catalogue.price_amount[subscriptions.price[subscription]] * subscriptions.quantity[subscription]
    coupon = subscriptions.coupon[subscription]
    duration = catalogue.coupon_duration[coupon] if len(catalogue.coupon_duration) else np.zeros_like(coupon)
    months = np.array([1, REPEATING_MONTHS, np.iinfo(np.int64).max])[duration]
    if not len(catalogue.coupon_duration):
        return subtotal, np.zeros_like(subtotal)
    points, amount = catalogue.coupon_basis_points[coupon], catalogue.coupon_amount[coupon]
    off = np.where(points >= 0, subtotal * points // 10_000, np.minimum(amount, subtotal - 1))
    return subtotal, np.where((coupon >= 0) & (number < months), off, 0)
