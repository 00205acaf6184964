"""Who takes part: merchants whose sizes follow a power law, persons with homes and cards, and their customers.

A customer is a person at one merchant.

Everything is a set of parallel arrays; a row is known by its position. Times are microseconds since 1970 (UTC).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from payments.simulation.arrays import Flags, Floats, Ints, expand, offsets, pick, pick_within
from payments.simulation.plan import DAY, Plan
from payments.simulation.streams import Streams
from payments.simulation.world import BRANDS, CATEGORIES, COUNTRIES, MONIES

INSTRUMENT_TYPES = ("card", "wallet", "bank_debit")
BANK_DEBIT = INSTRUMENT_TYPES.index("bank_debit")
MONEY_OF_COUNTRY: Ints = np.array([[money.code for money in MONIES].index(country.currency) for country in COUNTRIES])
CITY_COUNTRY, _ = expand(np.array([len(country.cities) for country in COUNTRIES]))
CITY_STARTS = offsets(np.array([len(country.cities) for country in COUNTRIES]))
CITIES = tuple(city for country in COUNTRIES for city in country.cities)
_CITY_WEIGHTS: Floats = np.concatenate([1.0 / np.arange(1, len(country.cities) + 1) for country in COUNTRIES])

# Networks seen in each country: the first of each country's share are mobile carriers, which many persons use at once.
CARRIERS = 4
_SIZE_EXPONENT = 1.05


@dataclass(frozen=True)
class Merchants:
    """One row a merchant, the largest first."""

    weight: Floats
    country: Ints
    city: Ints
    category: Ints
    money: Ints
    price_level: Floats
    charm_prices: Flags
    fee_basis_points: Ints
    fee_fixed: Ints
    created: Ints
    status: Ints


@dataclass(frozen=True)
class Subjects:
    """One row a person. `cards` gives where the person's instruments start (one entry more than persons)."""

    country: Ints
    city: Ints
    network: Ints
    spend_level: Floats
    activity: Floats
    device_type: npt.NDArray[np.int64]
    cards: Ints


@dataclass(frozen=True)
class Instruments:
    """One row a card, wallet or bank account of a person; brand -1 where there is none."""

    kind: Ints
    brand: Ints
    last4: Ints
    expiry_month: Ints
    funding: Ints
    issuer: Ints


@dataclass(frozen=True)
class Customers:
    """One row a person at one merchant, ordered by merchant. `methods` gives where the stored payment methods start."""

    merchant: Ints
    subject: Ints
    money: Ints
    has_consent: Flags
    methods: Ints
    joined_before: Flags


@dataclass(frozen=True)
class Methods:
    """One row a payment method stored with a customer, ordered by customer; the first is the usual one."""

    customer: Ints
    instrument: Ints


@dataclass(frozen=True)
class Population:
    """All who take part."""

    merchants: Merchants
    subjects: Subjects
    instruments: Instruments
    customers: Customers
    methods: Methods
    network_country: Ints


def draw_instruments(generator: np.random.Generator, issuer: Ints, end_month: int) -> Instruments:
    """Draw one instrument for each issuing country given; months are counted from year 0."""
    count = len(issuer)
    is_european = np.isin(
        issuer, [index for index, country in enumerate(COUNTRIES) if country.currency in ("EUR", "SEK")]
    )
    chance = generator.random(count)
    kind = np.where(chance < 0.84, 0, np.where((chance < 0.96) | ~is_european, 1, BANK_DEBIT)).astype(np.int64)
    brand = pick(generator, np.array([0.50, 0.31, 0.07, 0.06, 0.03, 0.03]), count)
    is_japanese = issuer == [country.code for country in COUNTRIES].index("JP")
    brand = np.where(is_japanese & (generator.random(count) < 0.3), BRANDS.index("jcb"), brand)
    brand = np.where(kind == BANK_DEBIT, -1, brand)
    lapses = generator.random(count) < 0.02
    months = np.where(lapses, generator.integers(-4, 1, count), generator.integers(1, 55, count))
    funding = pick(generator, np.array([0.46, 0.46, 0.06, 0.02]), count)
    return Instruments(kind, brand, generator.integers(0, 10_000, count), end_month + months, funding, issuer)


def _merchants(streams: Streams, plan: Plan) -> Merchants:
    generator = streams.stream("merchants")
    count = min(2_000, 24 + plan.transactions // 600)
    weight = np.arange(1, count + 1, dtype=np.float64) ** -_SIZE_EXPONENT * generator.lognormal(0, 0.15, count)
    shares = np.array([country.share for country in COUNTRIES])
    # The largest merchants stand in the first countries of the list, so that small runs have many currencies too.
    country = np.where(
        np.arange(count) < len(COUNTRIES), np.arange(count) % len(COUNTRIES), pick(generator, shares, count)
    )
    city = pick_within(generator, _CITY_WEIGHTS, CITY_STARTS[country], CITY_STARTS[country + 1])
    category = pick(generator, np.array([entry.share for entry in CATEGORIES]), count)
    spread_out = np.arange(count) < len(CATEGORIES)
    category = np.where(spread_out, generator.permutation(np.arange(count) % len(CATEGORIES)), category)
    money = MONEY_OF_COUNTRY[country]
    basis_points = np.where(weight > np.quantile(weight, 0.9), 190, np.where(weight > np.median(weight), 240, 290))
    return Merchants(
        weight=weight,
        country=country,
        city=city,
        category=category,
        money=money,
        price_level=generator.lognormal(0, 0.25, count),
        charm_prices=generator.random(count) < 0.5,
        fee_basis_points=basis_points.astype(np.int64),
        fee_fixed=np.array([entry.fee_fixed for entry in MONIES])[money],
        created=plan.start_moment - generator.integers(40 * DAY, 1500 * DAY, count),
        status=(generator.random(count) < 0.02).astype(np.int64),
    )


def build_population(streams: Streams, plan: Plan) -> Population:
    """Draw the population of a history."""
    merchants = _merchants(streams, plan)
    generator = streams.stream("persons")

    # Persons live where the merchants sell; a tenth of the customers of a merchant come from anywhere.
    person_count = max(30, plan.transactions // 8)
    sold_in = np.bincount(merchants.country, weights=merchants.weight, minlength=len(COUNTRIES))
    shares = np.array([country.share for country in COUNTRIES])
    country = np.sort(pick(generator, 0.9 * sold_in / sold_in.sum() + 0.1 * shares / shares.sum(), person_count))
    residents = offsets(np.bincount(country, minlength=len(COUNTRIES)))
    wanted = max(40, plan.transactions // 5)
    merchant = pick(generator, merchants.weight, wanted)
    home = merchants.country[merchant]
    is_local = (generator.random(wanted) < 0.9) & (residents[home + 1] > residents[home])
    anyone = generator.integers(0, person_count, wanted)
    liveliness = generator.lognormal(0, 0.5, person_count)
    low = np.where(is_local, residents[home], 0)
    high = np.where(is_local, residents[home + 1], person_count)
    subject = np.where(is_local, pick_within(generator, liveliness, low, high), anyone)
    pairs = np.unique(merchant * person_count + subject)
    merchant, subject = pairs // person_count, pairs % person_count

    # Persons who became nobody's customer are left out; the others are numbered anew.
    kept, subject = np.unique(subject, return_inverse=True)
    country = country[kept]
    count = len(kept)
    city = pick_within(generator, _CITY_WEIGHTS, CITY_STARTS[country], CITY_STARTS[country + 1])
    networks = CARRIERS + np.bincount(country, minlength=len(COUNTRIES)) * 2 // 3 + 4
    network_starts = offsets(networks)
    network = (
        network_starts[country] + CARRIERS + (generator.random(count) * (networks[country] - CARRIERS)).astype(np.int64)
    )
    card_count = 1 + pick(generator, np.array([0.45, 0.30, 0.17, 0.08]), count)
    owner, _ = expand(card_count)
    abroad = generator.random(len(owner)) < 0.03
    issuer = np.where(abroad, pick(generator, shares, len(owner)), country[owner])
    subjects = Subjects(
        country=country,
        city=city,
        network=network,
        spend_level=generator.lognormal(0, 0.35, count),
        activity=generator.lognormal(0, 0.9, count),
        device_type=pick(generator, np.array([0.62, 0.31, 0.07]), count * 2).reshape(count, 2),
        cards=offsets(card_count),
    )
    instruments = draw_instruments(generator, issuer, plan.end_month)

    customers_count = len(merchant)
    category_is_digital = np.array([entry.curve == "digital" for entry in CATEGORIES])[merchants.category[merchant]]
    is_foreign = country[subject] != merchants.country[merchant]
    pays_at_home_money = category_is_digital & is_foreign & (generator.random(customers_count) < 0.5)
    customer_of, place = expand(card_count[subject])
    first = (generator.random(customers_count) * card_count[subject] * 0.999).astype(np.int64)
    # The usual card comes first; the others of the person are stored with this merchant as often as not.
    place = (place + first[customer_of]) % card_count[subject[customer_of]]
    is_stored = (place == first[customer_of]) | (generator.random(len(place)) < 0.5)
    customer_of, place = customer_of[is_stored], place[is_stored]
    customers = Customers(
        merchant=merchant,
        subject=subject,
        money=np.where(pays_at_home_money, MONEY_OF_COUNTRY[country[subject]], merchants.money[merchant]),
        has_consent=generator.random(customers_count) < 0.58,
        methods=offsets(np.bincount(customer_of, minlength=customers_count)),
        joined_before=generator.random(customers_count) < 0.55,
    )
    methods = Methods(customer_of, subjects.cards[subject[customer_of]] + place)
    network_country, _ = expand(networks)
    return Population(merchants, subjects, instruments, customers, methods, network_country)
