"""Card-number screening: what is a card number, what is none, and what is left after redaction."""

import hashlib
import json
import random
import re
import uuid

import duckdb
import pytest

from payments.vault.cards import PREFILTER, find_card_numbers, luhn, redact, redact_record

# Numbers that the schemes and payment processors publish for tests.
CARDS = {
    "visa": ["4111111111111111", "4222222222222", "4012888888881881"],
    "mastercard": ["5555555555554444", "2223003122003222", "5105105105105100"],
    "amex": ["378282246310005", "371449635398431"],
    "discover": ["6011111111111117", "6011000990139424"],
    "jcb": ["3530111333300000", "3566002020360505"],
    "unionpay": ["6200000000000005"],
    "diners": ["30569309025904", "38520000023237", "36227206271667"],
}
ALL = [number for numbers in CARDS.values() for number in numbers]


def _with_check_digit(body: str) -> str:
    return next(body + digit for digit in "0123456789" if luhn(body + digit))


@pytest.mark.parametrize(
    ("brand", "number"), [(brand, number) for brand, numbers in CARDS.items() for number in numbers]
)
def test_a_card_number_is_found_with_its_brand(brand: str, number: str) -> None:
    assert [(span.start, span.end, span.brand) for span in find_card_numbers(f"pan={number};")] == [
        (4, 4 + len(number), brand)
    ]


@pytest.mark.parametrize("length", [16, 17, 18, 19])
def test_long_numbers_are_found(length: int) -> None:
    assert find_card_numbers(_with_check_digit("62" + "7" * (length - 3)))
    assert find_card_numbers(_with_check_digit("4" + "7" * 17))


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
        "3782 822463 10005",
        "12 4111 1111 1111 1111 99",
        '{"note":"\\n4111111111111111"}',
        '{"note":"\\u20284111111111111111"}',
        "(4111111111111111)",
        "card_4111111111111111",
    ],
)
def test_separators_and_boundaries(text: str) -> None:
    assert find_card_numbers(text)
    assert re.search(PREFILTER, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1751328000000",  # milliseconds
        "1751328000000000",  # microseconds
        "4111111111111112",  # wrong check digit
        "411111111111111",  # a digit short
        "41111111111111111",  # a digit long
        "x4111111111111111",
        "4111111111111111x",
        "4111  1111  1111  1111",  # two spaces
        "4111,1111,1111,1111",
        "9999999999999995",  # no issuer
        "2026-06-30 12:34:56.789012+00",
        "c3ab8ff13720e8ad9047dd39466b3c89",
        "12345678-4111-4111-8111-411111111111",
    ],
)
def test_what_is_no_card_number(text: str) -> None:
    assert find_card_numbers(text) == []
    assert redact(text) == text


def test_several_in_one_text() -> None:
    text = "first 4111111111111111, then 5555-5555-5555-4444 and 378282246310005"
    assert [span.brand for span in find_card_numbers(text)] == ["visa", "mastercard", "amex"]
    assert redact(text) == "first ************1111, then ****-****-****-4444 and ***********0005"


def test_random_cards_between_random_text_leave_at_most_four_digits() -> None:
    draw = random.Random(7)  # noqa: S311 - test data
    for _ in range(2_000):
        number = draw.choice(ALL)
        separator = draw.choice(["", " ", "-"])
        cuts = {place for place in range(1, len(number)) if draw.random() < 0.3} if separator else set()
        written = "".join((separator if place in cuts else "") + digit for place, digit in enumerate(number))
        before = draw.choice(["", ".", "note: ", "\n", '"', "é", "("])
        after = draw.choice(["", ".", " end", "\n", '"', "é", ")"])
        text = before + written + after
        assert re.search(PREFILTER, text), text
        assert find_card_numbers(text), text
        assert sum(character.isdigit() for character in redact(text)) == 4, text


def test_generated_identifiers_and_times_do_not_match() -> None:
    draw = random.Random(11)  # noqa: S311 - test data
    for _ in range(5_000):
        digest = hashlib.md5(draw.randbytes(8), usedforsecurity=False).hexdigest()
        texts = [
            digest,
            "ch_" + digest[:24],
            str(uuid.UUID(bytes=draw.randbytes(16), version=4)),
            str(draw.randrange(1_400_000_000_000, 1_999_999_999_999)),
            str(draw.randrange(1, 10**12)),
        ]
        assert [text for text in texts if find_card_numbers(text) and not text.removeprefix("ch_").isdigit()] == []


def test_the_engine_prefilter_keeps_every_candidate() -> None:
    draw = random.Random(13)  # noqa: S311 - test data
    texts = []
    for _ in range(20_000):
        length = draw.randrange(10, 24)
        texts.append("".join(draw.choice("0123456789 -x\\n") for _ in range(length)))
        texts.append("".join(draw.choice("4561230 -") for _ in range(length)))
    texts += ALL
    found = {text for text in texts if find_card_numbers(text)}
    assert len(found) > len(ALL)
    rows = duckdb.execute(
        "select text from (select unnest(?) as text) where regexp_matches(text, ?)", [texts, PREFILTER]
    ).fetchall()
    assert found <= {row[0] for row in rows}


def test_a_record_is_redacted_through_json_escapes_and_numbers() -> None:
    record = (
        '{"a":4111111111111111,"b":{"5555555555554444":["x\\n378282246310005"]},"c":"\\u0034111111111111111","d":1.10}'
    )
    clean = redact_record(record)
    assert json.loads(clean) == {
        "a": "************1111",
        "b": {"************4444": ["x\n***********0005"]},
        "c": "************1111",
        "d": 1.1,
    }
    assert redact_record('{"d":1.10, "e": null}') == '{"d":1.10, "e": null}'
    assert redact_record('{"broken": 4111111111111111') == '{"broken": ************1111'
    assert redact_record('{"broken": "\\u0034111\\u002d111111111111"') == '{"broken": "****-********1111"'
    assert redact_record("{broken \\u0034") == "{broken \\u0034"
