"""Ordinary payments: who pays where and when, on what device, and how each attempt ends.

An intent gathers attempts (charges) until one succeeds. Rows are drawn in random order of time; `history` sorts them.
"""

from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np

from payments.simulation.arrays import Flags, Floats, Ints, offsets, pick, pick_within
from payments.simulation.ids import hashes
from payments.simulation.plan import DAY, HOUR, SECOND, Plan
from payments.simulation.population import BANK_DEBIT, CARRIERS, CITY_STARTS, Population
from payments.simulation.streams import Streams
from payments.simulation.world import (
    CATEGORIES,
    COUNTRIES,
    CURVES,
    DO_NOT_HONOR,
    EXPIRED_CARD,
    HOURS,
    INCORRECT_CVC,
    INSUFFICIENT_FUNDS,
    MONIES,
    PROCESSING_ERROR,
    TERMINAL,
    WEEKDAYS,
)

CHARGE_STATUSES = ("failed", "succeeded", "pending")
FAILED, SUCCEEDED, PENDING = range(len(CHARGE_STATUSES))
ORDINARY, CARD_TESTING, STOLEN_CARD_USE = 0, 1, 2
_MAX_ATTEMPTS = 4
_ABANDONED_SHARE = 0.02

# Counters of devices: persons own two each; the ranges above hold terminals and devices seen once.
TERMINAL_DEVICES, FRESH_DEVICES, FRAUD_DEVICES = 1 << 28, 1 << 29, 3 << 28

_PER_UNIT: Floats = np.array([money.per_dollar * 10**money.exponent for money in MONIES])
_STEPS: Ints = np.array([money.price_step for money in MONIES])
_OFFSETS: Ints = np.array([country.utc_offset_minutes for country in COUNTRIES]) * 60 * SECOND


@dataclass(frozen=True)
class Intents:
    """One row an intention to pay; `method` is the first method tried, -1 where none was; `created` in microseconds."""

    customer: Ints
    method: Ints
    amount: Ints
    money: Ints
    created: Ints


@dataclass(frozen=True)
class Charges:
    """One row an attempt at the intent in that position; `failure` is -1 unless it failed; `kind` is not stored."""

    intent: Ints
    method: Ints
    status: Ints
    failure: Ints
    city: Ints
    network: Ints
    device: Ints
    device_type: Ints
    created: Ints
    kind: Ints


Rows = TypeVar("Rows", Intents, Charges)


def take(rows: Rows, index: Ints | Flags) -> Rows:
    """Return the chosen rows of a table of arrays."""
    return type(rows)(**{field.name: getattr(rows, field.name)[index] for field in fields(rows)})


def concatenate(parts: list[Rows]) -> Rows:
    """Return the rows of several tables, one after another."""
    names = [field.name for field in fields(parts[0])]
    return type(parts[0])(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def month_of(moments: Ints) -> Ints:
    """Return the month of each moment, counted from year 0."""
    months: Ints = moments.astype("datetime64[us]").astype("datetime64[M]").astype(np.int64) + 1970 * 12
    return months


def in_minor_units(dollars: Floats, money: Ints, charm: Flags) -> Ints:
    """Turn dollar sizes into prices in minor units of each currency: in its steps, and x.99 where a shop likes that."""
    step = _STEPS[money]
    amount = np.rint(np.clip(dollars, 0.4, 25_000) * _PER_UNIT[money] / step).astype(np.int64) * step
    amount = np.maximum(amount, step)
    charming = amount // 100 * 100 + 99
    has_cents = np.array([entry.exponent == 2 and entry.price_step == 1 for entry in MONIES])[money]
    prices: Ints = np.where(charm & has_cents & (amount >= 300), charming, amount)
    return prices


def draw_moments(generator: np.random.Generator, plan: Plan, country: Ints, category: Ints) -> Ints:
    """Draw a moment of the history for each payment, following the local hours and weekdays of its shop."""
    start, end, days = plan.start_moment, plan.end_moment, plan.days
    curve = np.array([CURVES.index(entry.curve) for entry in CATEGORIES])[category]
    first_weekday = (start // DAY + 3) % 7  # 1970-01-01 was a Thursday
    weekday = (first_weekday + np.arange(days)) % 7
    growth = 1 + 0.3 * np.arange(days) / days
    day, hour = np.zeros(len(country), np.int64), np.zeros(len(country), np.int64)
    for index, name in enumerate(CURVES):
        rows = np.flatnonzero(curve == index)
        day[rows] = pick(generator, np.array(WEEKDAYS[name])[weekday] * growth, len(rows))
        hour[rows] = pick(generator, np.array(HOURS[name], dtype=np.float64), len(rows))
    within = (generator.random(len(country)) * HOUR).astype(np.int64)
    moment = start + day * DAY + hour * HOUR + within - _OFFSETS[country]
    return np.where(moment < start, moment + DAY, np.where(moment >= end, moment - DAY, moment))


@dataclass(frozen=True)
class Places:
    """Where and on what an intent was made: city, network, device and its type."""

    city: Ints
    network: Ints
    device: Ints
    device_type: Ints


def _places(streams: Streams, population: Population, customer: Ints, created: Ints) -> Places:
    generator = streams.stream("places")
    count = len(customer)
    merchants, subjects = population.merchants, population.subjects
    merchant = population.customers.merchant[customer]
    subject = population.customers.subject[customer]
    network_starts = np.searchsorted(population.network_country, np.arange(len(COUNTRIES) + 1))

    # A person travels for whole weeks; then the whole week's payments come from there.
    week = created // (7 * DAY)
    luck = hashes(streams.seed, "travel", subject * 4096 + week % 4096)
    is_away = (luck % np.uint64(1000)) < 12
    abroad = ((luck >> np.uint64(20)) % np.uint64(len(COUNTRIES))).astype(np.int64)
    country = np.where(is_away, abroad, subjects.country[subject])
    away_city = CITY_STARTS[country] + (luck >> np.uint64(40)).astype(np.int64) % np.diff(CITY_STARTS)[country]
    city = np.where(is_away, away_city, subjects.city[subject])

    low, high = network_starts[country], network_starts[country + 1]
    way = generator.random(count)
    carrier = low + generator.integers(0, CARRIERS, count)
    elsewhere = low + (generator.random(count) * (high - low)).astype(np.int64)
    at_home = np.where(is_away, elsewhere, subjects.network[subject])
    network = np.where(way < 0.70, at_home, np.where(way < 0.95, carrier, elsewhere))

    slot = (generator.random(count) < 0.2).astype(np.int64)
    is_fresh = generator.random(count) < 0.03
    device = np.where(is_fresh, FRESH_DEVICES + np.arange(count), subject * 2 + slot)
    device_type = np.where(
        is_fresh, pick(generator, np.array([0.6, 0.35, 0.05]), count), subjects.device_type[subject, slot]
    )

    terminal_share = np.array([entry.terminal_share for entry in CATEGORIES])[merchants.category[merchant]]
    at_terminal = generator.random(count) < terminal_share
    terminal = TERMINAL_DEVICES + merchant * 4 + generator.integers(0, 4, count)
    shop_network = network_starts[-1] + merchant
    return Places(
        city=np.where(at_terminal, merchants.city[merchant], city),
        network=np.where(at_terminal, shop_network, network),
        device=np.where(at_terminal, terminal, device),
        device_type=np.where(at_terminal, TERMINAL, device_type),
    )


def _failure_codes(generator: np.random.Generator, is_expired: Flags) -> Ints:
    codes = np.array([INSUFFICIENT_FUNDS, DO_NOT_HONOR, INCORRECT_CVC, PROCESSING_ERROR, EXPIRED_CARD])
    drawn = codes[pick(generator, np.array([0.52, 0.26, 0.13, 0.07, 0.02]), len(is_expired))]
    return np.where(is_expired, EXPIRED_CARD, drawn)


def _wait(generator: np.random.Generator, failure: Ints) -> Ints:
    """Return how long a person waits after a decline: minutes after a typing error, hours when money is short."""
    seconds = np.exp(generator.normal(np.log(90), 0.7, len(failure)))
    hours = np.exp(generator.normal(np.log(9), 1.1, len(failure))) * 3600
    return (np.where(failure == INSUFFICIENT_FUNDS, hours, seconds + 5) * SECOND).astype(np.int64)


def ordinary_payments(streams: Streams, plan: Plan, population: Population) -> tuple[Intents, Charges]:
    """Draw intents that carry at least as many charges as the plan wants.

    Both tables are in the order of the intents; the caller keeps as many leading charges as it needs.
    """
    generator = streams.stream("payments")
    charges, end = plan.transactions, plan.end_moment
    merchants, customers, methods = population.merchants, population.customers, population.methods
    by_merchant = offsets(np.bincount(customers.merchant, minlength=len(merchants.weight)))
    has_customers = np.diff(by_merchant) > 0
    merchant = pick(generator, merchants.weight * has_customers, charges)
    activity = population.subjects.activity[customers.subject]
    customer = pick_within(generator, activity, by_merchant[merchant], by_merchant[merchant + 1])
    category = merchants.category[merchant]
    created = draw_moments(generator, plan, merchants.country[merchant], category)

    medians = np.array([entry.median_dollars for entry in CATEGORIES])[category]
    spreads = np.array([entry.spread for entry in CATEGORIES])[category]
    level = population.subjects.spend_level[customers.subject[customer]]
    dollars = medians * merchants.price_level[merchant] * level * generator.lognormal(0, 1, charges) ** spreads
    amount = in_minor_units(dollars, customers.money[customer], merchants.charm_prices[merchant])

    choices = customers.methods[customer + 1] - customers.methods[customer]
    other = (generator.random(charges) * choices).astype(np.int64)
    place_of_method = np.where(generator.random(charges) < 0.82, 0, other)
    month = month_of(created)
    expiry = population.instruments.expiry_month[methods.instrument]
    first_is_expired = expiry[customers.methods[customer] + place_of_method] < month
    # Most people notice that a card has run out, and take another when they have one.
    replaces = first_is_expired & (generator.random(charges) < 0.7)
    place_of_method = np.where(replaces, (place_of_method + 1) % choices, place_of_method)
    intents = Intents(
        customer, customers.methods[customer] + place_of_method, amount, customers.money[customer], created
    )
    where = _places(streams, population, customer, created)

    declines = np.array([entry.decline_rate for entry in CATEGORIES])[category]
    funding_risk = np.array([0.8, 1.1, 1.9, 1.0])
    tries = streams.stream("attempts")
    rows, moment = np.arange(charges), created
    attempts: list[Charges] = []
    for attempt in range(_MAX_ATTEMPTS):
        method = customers.methods[customer[rows]] + place_of_method[rows]
        instrument = methods.instrument[method]
        is_debit = population.instruments.kind[instrument] == BANK_DEBIT
        is_expired = (population.instruments.expiry_month[instrument] < month_of(moment)) & ~is_debit
        chance = declines[rows] * funding_risk[population.instruments.funding[instrument]] if attempt == 0 else 0.42
        chance = np.where(is_expired, 0.97, np.where(is_debit, 0.02, chance))
        fails = tries.random(len(rows)) < chance
        failure = np.where(fails, _failure_codes(tries, is_expired), -1)
        is_pending = ~fails & is_debit & (moment > end - 3 * DAY)
        attempts.append(
            Charges(
                intent=rows,
                method=method,
                status=np.where(fails, FAILED, np.where(is_pending, PENDING, SUCCEEDED)),
                failure=failure,
                city=where.city[rows],
                network=where.network[rows],
                device=where.device[rows],
                device_type=where.device_type[rows],
                created=moment,
                kind=np.full(len(rows), ORDINARY),
            )
        )
        later = moment + _wait(tries, failure)
        again = fails & (tries.random(len(rows)) < 0.55) & (later < end)
        switches = tries.random(len(rows)) < 0.5
        place_of_method[rows] = np.where(switches, (place_of_method[rows] + 1) % choices[rows], place_of_method[rows])
        rows, moment = rows[again], later[again]
        if not len(rows):
            break
    drawn = concatenate(attempts)
    return intents, take(drawn, np.lexsort((drawn.created, drawn.intent)))


def abandoned_intents(streams: Streams, intents: Intents) -> Intents:
    """Return intents that never saw an attempt: a small part of the given ones, at other moments of the same day."""
    generator = streams.stream("abandoned")
    chosen = np.flatnonzero(generator.random(len(intents.created)) < _ABANDONED_SHARE)
    copy = take(intents, chosen)
    day = copy.created // DAY * DAY
    moment = day + (generator.random(len(chosen)) * DAY).astype(np.int64)
    return Intents(copy.customer, np.full(len(chosen), -1), copy.amount, copy.money, moment)
