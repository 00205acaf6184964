"""Two fraud patterns. Nothing stored marks them: their only label is a dispute that arrives later (see aftermath).

Card testing: a burst of small amounts over many cards, from a few throwaway customers, devices and networks, at one
online merchant; most attempts are declined. Stolen card: the card of a known customer is suddenly used from a far
country, on a device never seen before, for larger amounts.
"""

from dataclasses import dataclass, replace

import numpy as np

from payments.simulation.arrays import Floats, Ints, expand, offsets, pick
from payments.simulation.plan import DAY, HOUR, SECOND, Plan
from payments.simulation.population import (
    BANK_DEBIT,
    CITY_STARTS,
    Customers,
    Instruments,
    Methods,
    Population,
    Subjects,
    draw_instruments,
)
from payments.simulation.purchases import (
    CARD_TESTING,
    FAILED,
    FRAUD_DEVICES,
    STOLEN_CARD_USE,
    SUCCEEDED,
    Charges,
    Intents,
    in_minor_units,
)
from payments.simulation.streams import Streams
from payments.simulation.world import (
    CATEGORIES,
    COUNTRIES,
    DO_NOT_HONOR,
    EXPIRED_CARD,
    INCORRECT_CVC,
    INCORRECT_NUMBER,
    INSUFFICIENT_FUNDS,
    STOLEN_CARD,
    VELOCITY,
)

_TESTING_SHARE, _STOLEN_SHARE = 0.012, 0.006
_BURST = 60


@dataclass(frozen=True)
class Fraud:
    """The intents and charges of a pattern, and the population with those who take part in it."""

    population: Population
    intents: Intents
    charges: Charges


@dataclass(frozen=True)
class Budget:
    """How many charges each pattern gets."""

    card_testing: int
    stolen_cards: int

    @property
    def total(self) -> int:
        """The charges of both patterns."""
        return self.card_testing + self.stolen_cards


def fraud_budget(transactions: int) -> Budget:
    """Return how many charges the patterns get in a history of this size; none below 300 charges."""
    if transactions < 300:
        return Budget(0, 0)
    return Budget(max(60, round(transactions * _TESTING_SHARE)), max(16, round(transactions * _STOLEN_SHARE)))


def _online_weights(population: Population) -> Floats:
    terminal_share = np.array([entry.terminal_share for entry in CATEGORIES])[population.merchants.category]
    return np.sqrt(population.merchants.weight) * (terminal_share < 0.5)


def _network_in(generator: np.random.Generator, population: Population, country: Ints) -> Ints:
    starts = np.searchsorted(population.network_country, np.arange(len(COUNTRIES) + 1))
    low, high = starts[country], starts[country + 1]
    return low + (generator.random(len(country)) * (high - low)).astype(np.int64)


def card_testing(streams: Streams, plan: Plan, population: Population) -> Fraud:
    """Draw bursts of attempts; each attempt is an intent of its own."""
    count = fraud_budget(plan.transactions).card_testing
    generator = streams.stream("card testing")
    bursts = max(2, round(count / _BURST))
    sizes = np.bincount(pick(generator, generator.uniform(0.5, 1.5, bursts), count), minlength=bursts)
    burst, _ = expand(sizes)
    merchant = pick(generator, _online_weights(population), bursts)
    country = generator.integers(0, len(COUNTRIES), bursts)
    length = generator.integers(15 * 60 * SECOND, 80 * 60 * SECOND, bursts)
    # A burst ends within the history; an hour before the first is left for its customers to sign up.
    begins = plan.start_moment + (generator.random(bursts) * (plan.days * DAY - 3 * HOUR)).astype(np.int64) + HOUR
    created = begins[burst] + (generator.random(count) * length[burst]).astype(np.int64)

    # Throwaway persons: two to five customers a burst.
    crew = generator.integers(2, 6, bursts)
    crew_starts = offsets(crew)
    crew_burst, _ = expand(crew)
    persons, subject_base = len(crew_burst), len(population.subjects.country)
    city = CITY_STARTS[country] + generator.integers(0, 1 << 30, bursts) % np.diff(CITY_STARTS)[country]
    member = crew_starts[burst] + generator.integers(0, 1 << 30, count) % crew[burst]

    # A quarter of the tested cards belong to known persons, the others appear here for the first time.
    known_cards = np.flatnonzero(population.instruments.kind != BANK_DEBIT)
    instrument_base = len(population.instruments.kind)
    issuer = pick(generator, np.array([entry.share for entry in COUNTRIES]), count)
    fresh = draw_instruments(generator, issuer, plan.end_month)
    fresh = replace(fresh, kind=np.zeros(count, np.int64), brand=np.maximum(fresh.brand, 0))
    is_known = generator.random(count) < 0.25
    instrument = np.where(
        is_known, known_cards[generator.integers(0, len(known_cards), count)], instrument_base + np.arange(count)
    )
    by_member = np.argsort(member, kind="stable")
    method = np.empty(count, np.int64)
    method[by_member] = len(population.methods.customer) + np.arange(count)
    method_counts = np.bincount(member, minlength=persons)

    customer_base = len(population.customers.merchant)
    grown = Population(
        merchants=population.merchants,
        subjects=_more_subjects(generator, population.subjects, country[crew_burst], city[crew_burst]),
        instruments=_joined_instruments(population.instruments, fresh),
        customers=Customers(
            merchant=np.concatenate([population.customers.merchant, merchant[crew_burst]]),
            subject=np.concatenate([population.customers.subject, subject_base + np.arange(persons)]),
            money=np.concatenate([population.customers.money, population.merchants.money[merchant[crew_burst]]]),
            has_consent=np.concatenate([population.customers.has_consent, np.zeros(persons, bool)]),
            methods=np.concatenate(
                [population.customers.methods, population.customers.methods[-1] + method_counts.cumsum()]
            ),
            joined_before=np.concatenate([population.customers.joined_before, np.zeros(persons, bool)]),
        ),
        methods=Methods(
            customer=np.concatenate([population.methods.customer, customer_base + member[by_member]]),
            instrument=np.concatenate([population.methods.instrument, instrument[by_member]]),
        ),
        network_country=population.network_country,
    )

    money = population.merchants.money[merchant[burst]]
    amount = in_minor_units(generator.uniform(0.5, 2.5, count), money, np.zeros(count, bool))
    fails = generator.random(count) < 0.8
    codes = np.array([INCORRECT_CVC, DO_NOT_HONOR, INCORRECT_NUMBER, EXPIRED_CARD, STOLEN_CARD, VELOCITY])
    failure = codes[pick(generator, np.array([0.34, 0.30, 0.12, 0.12, 0.06, 0.06]), count)]
    networks = np.stack([_network_in(generator, population, country) for _ in range(2)], axis=1)
    gear = generator.integers(0, 2, count)
    intents = Intents(customer_base + member, method, amount, money, created)
    charges = Charges(
        intent=np.arange(count),
        method=method,
        status=np.where(fails, FAILED, SUCCEEDED),
        failure=np.where(fails, failure, -1),
        city=city[burst],
        network=networks[burst, gear],
        device=FRAUD_DEVICES + burst * 2 + gear,
        device_type=np.ones(count, np.int64),
        created=created,
        kind=np.full(count, CARD_TESTING),
    )
    return Fraud(grown, intents, charges)


def stolen_cards(streams: Streams, plan: Plan, population: Population, intents: Intents, charges: Charges) -> Fraud:
    """Draw misuses of cards that paid before (`intents` and `charges` are the ordinary payments).

    There are none when the history is too short for a card to become known.
    """
    generator = streams.stream("stolen cards")
    count, end = fraud_budget(plan.transactions).stolen_cards, plan.end_moment
    online = _online_weights(population)[population.customers.merchant[intents.customer]] > 0
    is_card = population.instruments.kind[population.methods.instrument[charges.method]] != BANK_DEBIT
    usable = (charges.status == SUCCEEDED) & is_card & online[charges.intent]
    usable &= (charges.created > plan.start_moment + plan.days * DAY // 10) & (charges.created < end - DAY)
    candidates = np.flatnonzero(usable)
    if not len(candidates):
        count = 0
    thefts = max(1, round(count / 2.4)) if count else 0
    seen = candidates[generator.integers(0, max(1, len(candidates)), thefts)] if thefts else candidates[:0]
    theft = np.sort(generator.integers(0, max(1, thefts), count))
    _, nth = _places_in_groups(theft)

    room = np.minimum(10 * DAY, end - 12 * HOUR - charges.created[seen])
    begins = charges.created[seen] + HOUR + (generator.random(thefts) * (room - HOUR)).astype(np.int64)
    # Uses follow each other within the hour; however many there are, they end with the history.
    gap = (np.minimum(nth, 10) * HOUR + generator.integers(0, 50 * 60, count) * SECOND).astype(np.int64)
    created = begins[theft] + gap

    customer = intents.customer[charges.intent[seen]]
    home = population.subjects.country[population.customers.subject[customer]]
    country = (home + generator.integers(1, len(COUNTRIES), thefts)) % len(COUNTRIES)
    city = CITY_STARTS[country] + generator.integers(0, 1 << 30, thefts) % np.diff(CITY_STARTS)[country]
    network = _network_in(generator, population, country)

    merchant = population.customers.merchant[customer][theft]
    medians = np.array([entry.median_dollars for entry in CATEGORIES])[population.merchants.category[merchant]]
    money = population.customers.money[customer][theft]
    dollars = medians * population.merchants.price_level[merchant] * generator.lognormal(np.log(3.5), 0.5, count)
    amount = in_minor_units(dollars, money, population.merchants.charm_prices[merchant])
    fails = generator.random(count) < 0.32
    codes = np.array([DO_NOT_HONOR, INSUFFICIENT_FUNDS, VELOCITY, STOLEN_CARD])
    failure = codes[pick(generator, np.array([0.45, 0.30, 0.15, 0.10]), count)]
    method = charges.method[seen][theft]
    return Fraud(
        population,
        Intents(customer[theft], method, amount, money, created),
        Charges(
            intent=np.arange(count),
            method=method,
            status=np.where(fails, FAILED, SUCCEEDED),
            failure=np.where(fails, failure, -1),
            city=city[theft],
            network=network[theft],
            device=FRAUD_DEVICES + (1 << 27) + theft,
            device_type=generator.integers(0, 2, thefts)[theft],
            created=created,
            kind=np.full(count, STOLEN_CARD_USE),
        ),
    )


def _places_in_groups(groups: Ints) -> tuple[Ints, Ints]:
    sizes = np.bincount(groups, minlength=int(groups.max()) + 1) if len(groups) else np.zeros(0, np.int64)
    return expand(sizes)


def _more_subjects(generator: np.random.Generator, known: Subjects, country: Ints, city: Ints) -> Subjects:
    count = len(country)
    return Subjects(
        country=np.concatenate([known.country, country]),
        city=np.concatenate([known.city, city]),
        network=np.concatenate([known.network, np.full(count, -1)]),
        spend_level=np.concatenate([known.spend_level, np.ones(count)]),
        activity=np.concatenate([known.activity, np.ones(count)]),
        device_type=np.concatenate([known.device_type, generator.integers(0, 2, (count, 2))]),
        cards=np.concatenate([known.cards, np.full(count, known.cards[-1])]),
    )


def _joined_instruments(known: Instruments, fresh: Instruments) -> Instruments:
    return Instruments(
        **{
            name: np.concatenate([getattr(known, name), getattr(fresh, name)])
            for name in ("kind", "brand", "last4", "expiry_month", "funding", "issuer")
        }
    )
