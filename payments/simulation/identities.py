"""Who the persons are: names, e-mail addresses, phones and postal addresses from small pools.

Identity exists in clear in memory only: what is written is ciphertext under the person's own key, and keyed tokens.
"""

import unicodedata
from dataclasses import dataclass
from functools import cached_property
from uuid import UUID

import numpy as np
from faker import Faker

from payments.simulation.arrays import Ints
from payments.simulation.ids import uuids
from payments.simulation.population import CITIES, Subjects
from payments.simulation.streams import Streams
from payments.simulation.world import COUNTRIES
from payments.vault import KeyRing, encrypt_field, new_data_key, wrap

_POOL = 160
_DOMAINS = (
    "gmail.com",
    "outlook.com",
    "yahoo.com",
    "icloud.com",
    "proton.me",
    "gmx.net",
    "hotmail.com",
    "fastmail.com",
)
_DOMAIN_WEIGHTS = np.array([0.42, 0.16, 0.13, 0.12, 0.05, 0.05, 0.05, 0.02])


@dataclass(frozen=True)
class _Pool:
    firsts: list[str]
    lasts: list[str]
    handles: list[tuple[str, str]]
    streets: list[str]
    postcodes: list[str]


def _ascii(text: str) -> str:
    folded = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return "".join(letter for letter in folded if letter.isalnum())


def _pool(locale: str, seed: int) -> _Pool:
    faker = Faker(locale, providers=["faker.providers.person", "faker.providers.address"])  # the others take seconds
    faker.seed_instance(seed)
    firsts, lasts = [faker.first_name() for _ in range(_POOL)], [faker.last_name() for _ in range(_POOL)]
    if locale == "ja_JP":
        handles = [(faker.first_romanized_name().lower(), faker.last_romanized_name().lower()) for _ in range(_POOL)]
    else:
        handles = [(_ascii(first), _ascii(last)) for first, last in zip(firsts, lasts, strict=True)]
    streets = [faker.street_address().replace("\n", ", ").strip() for _ in range(_POOL)]
    return _Pool(firsts, lasts, handles, streets, [faker.postcode() for _ in range(_POOL)])


@dataclass(frozen=True)
class Person:
    """The identity of one person, in clear."""

    name: str
    email: str
    phone: str
    address: str

    @property
    def email_domain(self) -> str:
        """The part of the e-mail address that may be kept in clear."""
        return self.email.rpartition("@")[2]


class Identities:
    """The persons of a history: deterministic identities, and fresh data keys."""

    def __init__(self, streams: Streams, subjects: Subjects) -> None:
        self._streams = streams
        self._subjects = subjects

    @cached_property
    def subject_ids(self) -> list[UUID]:
        """The subject id of each person."""
        return uuids(self._streams.seed, "subject", len(self._subjects.country))

    @cached_property
    def persons(self) -> list[Person]:
        """The identity of each person; every e-mail address is of one person only."""
        generator = self._streams.stream("identities")
        count = len(self._subjects.country)
        first, last, street, postcode = (generator.integers(0, _POOL, count).tolist() for _ in range(4))
        house, phone = generator.integers(0, 400, count).tolist(), generator.integers(10**8, 10**9, count).tolist()
        domain = generator.choice(len(_DOMAINS), count, p=_DOMAIN_WEIGHTS / _DOMAIN_WEIGHTS.sum()).tolist()
        codes = sorted(set(self._subjects.country.tolist()))
        pools = {code: _pool(COUNTRIES[code].locale, self._streams.seed + code) for code in codes}
        persons = []
        for row, (country_index, city) in enumerate(
            zip(self._subjects.country.tolist(), self._subjects.city.tolist(), strict=True)
        ):
            country, pool = COUNTRIES[country_index], pools[country_index]
            given, family = pool.handles[first[row]][0], pool.handles[last[row]][1]
            handle = ".".join(part for part in (given, family) if part) or "hello"
            persons.append(
                Person(
                    name=f"{pool.firsts[first[row]]} {pool.lasts[last[row]]}",
                    email=f"{handle}.{row}@{_DOMAINS[domain[row]]}",
                    phone=f"{country.calling_code}{phone[row]}",
                    address=f"{pool.streets[street[row]]} /{house[row]}, "
                    f"{pool.postcodes[postcode[row]]} {CITIES[city]}, {country.code}",
                )
            )
        return persons

    @cached_property
    def data_keys(self) -> list[bytes]:
        """A fresh data key for each person."""
        return [new_data_key() for _ in self.subject_ids]

    def wrapped_keys(self, ring: KeyRing, rows: Ints) -> list[bytes]:
        """The data key of each of these persons under the active key of the ring."""
        return [wrap(ring, self.data_keys[row], self.subject_ids[row]) for row in rows.tolist()]

    def encrypted(self, field: str, subjects: Ints) -> list[bytes]:
        """One field (name, email, phone or address) of the given persons, each encrypted under the person's key."""
        keys, persons = self.data_keys, self.persons
        return [encrypt_field(keys[row], getattr(persons[row], field), field) for row in subjects.tolist()]
