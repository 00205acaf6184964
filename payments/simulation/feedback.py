"""What customers say of a payment: reviews, survey answers and tickets, encrypted under the key of whom they come from.

What was sent in the second half of the history is written in schema version 2: with the version of the customer's row,
what a reader needs of the charge, the scores of a survey, and the messages of a ticket.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from payments.simulation.arrays import Flags, Ints, pick
from payments.simulation.business import Business
from payments.simulation.collection import Collection, Document, collection, milliseconds, written
from payments.simulation.columns import CURRENCIES
from payments.simulation.ids import IdSpace
from payments.simulation.names import Names
from payments.simulation.plan import DAY, HOUR
from payments.simulation.purchases import CHARGE_STATUSES, ORDINARY, SUCCEEDED
from payments.simulation.streams import Streams
from payments.simulation.texts import LANGUAGES, SENTIMENTS, TOPICS, feedback_text, reply_text
from payments.simulation.world import COUNTRIES

# Seals a text under the key of a person, given by place; None when the key is gone.
Encrypt = Callable[[int, str], bytes | None]
CUSTOMER_VERSION = 1
_KINDS = ("review", "survey", "ticket")
_SURVEY, _TICKET = _KINDS.index("survey"), _KINDS.index("ticket")
_QUESTIONS = ("recommend", "ease_of_use", "support")
_FEEDBACK_SHARE = 0.03


@dataclass(frozen=True)
class _Given:
    """One row a review, survey or ticket, in order of time; rating 0 where none was given, messages 0 but in tickets.

    The messages of a ticket follow each other after `pause` microseconds.
    """

    merchant: Ints
    customer: Ints
    charge: Ints
    kind: Ints
    rating: Ints
    topic: Ints
    sentiment: Ints
    submitted: Ints
    messages: Ints
    pause: Ints


class Feedback:
    """The feedback of a history."""

    def __init__(self, names: Names) -> None:
        self._names, self._business = names, names.business
        self._given = _draw_feedback(names.streams, names.business)
        self._ids = IdSpace(names.business.plan.seed, "fb")
        self._merchant_ids: list[Any] = names.merchant_ids.to_pylist()
        self._customer_ids: list[Any] = names.customer_ids.to_pylist()

    def subjects(self) -> Ints:
        """Return the persons who gave feedback."""
        return np.unique(self._business.population.customers.subject[self._given.customer])

    def collections(self, encrypt: Encrypt) -> list[Collection]:
        """Return the feedback; a document whose text cannot be sealed any more is None.

        An erased person's words are not written again.
        """
        make = lambda rows, ids: self._documents(rows, ids, encrypt)  # noqa: E731
        return [collection("feedback", self._ids, len(self._given.submitted), make)]

    def _documents(self, rows: slice, ids: Sequence[str], encrypt: Encrypt) -> list[Document | None]:
        given, population = self._given, self._business.population
        plain, extended = written(1), written(2)
        subject = population.customers.subject[given.customer[rows]]
        numbers = self._ids.draws(np.arange(rows.start, rows.stop)).tolist()
        charges = self._names.spaces["ch"].strings(np.maximum(given.charge[rows], 0))
        is_extended = (given.submitted[rows] >= self._business.plan.middle_moment).tolist()
        documents: list[Document | None] = []
        for row, (feedback_id, merchant, customer, charge, kind, rating, topic, sentiment, person, moment) in enumerate(
            zip(
                ids,
                given.merchant[rows].tolist(),
                given.customer[rows].tolist(),
                given.charge[rows].tolist(),
                given.kind[rows].tolist(),
                given.rating[rows].tolist(),
                given.topic[rows].tolist(),
                given.sentiment[rows].tolist(),
                subject.tolist(),
                milliseconds(given.submitted[rows]),
                strict=True,
            )
        ):
            language = LANGUAGES.get(COUNTRIES[int(population.subjects.country[person])].locale[:2], "en")
            sealed = encrypt(person, feedback_text(language, TOPICS[topic], SENTIMENTS[sentiment], numbers[row]))
            if sealed is None:
                documents.append(None)
                continue
            charge_id = charges[row] if charge >= 0 else None
            documents.append(
                {
                    "_id": feedback_id,
                    "merchant_id": self._merchant_ids[merchant],
                    "customer_id": self._customer_ids[customer],
                    "kind": _KINDS[kind],
                    "rating": rating or None,
                    "topic": TOPICS[topic],
                    "sentiment": SENTIMENTS[sentiment],
                    "language": language,
                    "text_encrypted": sealed,
                    "submitted_at": moment,
                    **(
                        {
                            "customer_version": CUSTOMER_VERSION,
                            "charge": self._charge(charge, charge_id),
                            "answers": _answers(sentiment, numbers[row]) if kind == _SURVEY else None,
                            "message_count": int(given.messages[rows.start + row]) or None,
                            "thread": self._thread(rows.start + row, person, language, numbers[row], encrypt),
                            **extended,
                        }
                        if is_extended[row]
                        else {"charge_id": charge_id, **plain}
                    ),
                }
            )
        return documents

    def _charge(self, charge: int, charge_id: str | None) -> Document | None:
        """Return what a reader needs of a charge, as its row says at the end of the history."""
        if charge_id is None:
            return None
        business = self._business
        return {
            "charge_id": charge_id,
            "version": int(business.charge_version[charge]),
            "amount_minor": int(business.sales.amount[charge]),
            "currency": CURRENCIES[business.sales.money[charge]],
            "status": CHARGE_STATUSES[business.charges.status[charge]],
        }

    def _thread(self, row: int, person: int, language: str, number: int, encrypt: Encrypt) -> list[Document] | None:
        """Return the messages of a ticket, customer and agent in turn; the customer's words and the answers to them."""
        given = self._given
        count = int(given.messages[row])
        if not count:
            return None
        topic, sentiment = TOPICS[given.topic[row]], SENTIMENTS[given.sentiment[row]]
        moments = milliseconds(given.submitted[row] + given.pause[row] * np.arange(count))
        messages = []
        for place, moment in enumerate(moments):
            is_customer = place % 2 == 0
            text = feedback_text(language, topic, sentiment, number + place)
            sealed = encrypt(person, text if is_customer else reply_text(language, number + place))
            author = "customer" if is_customer else "agent"
            messages.append({"author": author, "sent_at": moment, "text_encrypted": sealed})
        return messages


def _answers(sentiment: int, number: int) -> list[Document]:
    """Return the scores of a survey from 0 to 10: those of a mood, and a little chance."""
    middle = (9, 6, 2)[sentiment]
    count = 1 + number % len(_QUESTIONS)
    return [
        {"question": question, "score": min(10, max(0, middle + (number >> 8 * place) % 4 - 2))}
        for place, question in enumerate(_QUESTIONS[:count])
    ]


def _draw_feedback(streams: Streams, business: Business) -> _Given:
    """Draw what customers say hours to weeks after a charge: worse after a decline, a refund or a dispute."""
    generator = streams.stream("feedback")
    plan, charges = business.plan, business.charges
    total = len(charges.created)
    charge = np.sort(generator.permutation(total)[: round(plan.transactions * _FEEDBACK_SHARE)])
    charge = charge[charges.kind[charge] == ORDINARY]
    submitted = charges.created[charge] + (np.exp(generator.normal(np.log(3), 1.0, len(charge))) * DAY).astype(np.int64)
    in_time = submitted < plan.end_moment
    charge, submitted = charge[in_time], submitted[in_time]
    count = len(charge)
    went_wrong: Flags = (charges.status[charge] != SUCCEEDED) | (business.charge_refunded[charge] > 0)
    mood = pick(generator, np.array([0.62, 0.20, 0.18]), count)
    sentiment = np.where(went_wrong & (generator.random(count) < 0.7), SENTIMENTS.index("negative"), mood)
    kind = np.where(
        went_wrong,
        pick(generator, np.array([0.2, 0.1, 0.7]), count),
        pick(generator, np.array([0.6, 0.28, 0.12]), count),
    )
    topic = pick(generator, np.array([0.28, 0.24, 0.16, 0.12, 0.12, 0.08]), count)
    topic = np.where(charges.status[charge] != SUCCEEDED, TOPICS.index("payment"), topic)
    stars = np.array([5, 3, 1])[sentiment] + np.array([-1, 0, 1])[sentiment] * (generator.random(count) < 0.4)
    messages, pause = _draw_threads(streams, submitted, plan.end_moment)
    order = np.argsort(submitted, kind="stable")
    return _Given(
        merchant=business.sales.merchant[charge][order],
        customer=business.charge_customer[charge][order],
        charge=np.where(kind == _SURVEY, -1, charge)[order],
        kind=kind[order],
        rating=np.where(kind == _TICKET, 0, stars)[order],
        topic=topic[order],
        sentiment=sentiment[order],
        submitted=submitted[order],
        messages=np.where(kind == _TICKET, messages, 0)[order],
        pause=pause[order],
    )


def _draw_threads(streams: Streams, submitted: Ints, end: int) -> tuple[Ints, Ints]:
    """Draw how many messages a ticket of each moment would have by the end, and the time between two of them."""
    generator = streams.stream("threads")
    pause = generator.integers(HOUR, 30 * HOUR, len(submitted))
    messages: Ints = np.minimum(1 + generator.integers(0, 6, len(submitted)), 1 + (end - 1 - submitted) // pause)
    return messages, pause
