"""Key ring, envelope encryption and tokens."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import pytest

from payments.errors import UsageError
from payments.vault import (
    DecryptionError,
    KeyRing,
    card_fingerprint,
    decrypt_field,
    encrypt_field,
    merchant_token,
    network_prefix_token,
    network_token,
    new_data_key,
    unwrap,
    wrap,
    wrapping_key_id,
)

PERSON = UUID("6c6ff4a9-1f4b-4f0e-9c6a-0f2f6d6f8f11")
OTHER = UUID("7c6ff4a9-1f4b-4f0e-9c6a-0f2f6d6f8f11")


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing.load_or_create(tmp_path / "keys" / "ring.json")


def test_ring_is_created_once_and_readable_by_its_owner_only(ring: KeyRing) -> None:
    again = KeyRing.load_or_create(ring.path)
    assert (again.active_key_id, again.keys, again.token_secret) == (ring.active_key_id, ring.keys, ring.token_secret)
    assert ring.path.stat().st_mode & 0o777 == 0o600
    assert ring.path.parent.stat().st_mode & 0o777 == 0o700


def test_many_creators_get_one_ring(tmp_path: Path) -> None:
    path = tmp_path / "ring.json"
    with ThreadPoolExecutor(8) as pool:
        rings = list(pool.map(lambda _: KeyRing.load_or_create(path), range(16)))
    assert len({ring.token_secret for ring in rings}) == 1


def test_ring_open_to_others_is_refused(ring: KeyRing) -> None:
    ring.path.chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        KeyRing.load_or_create(ring.path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2, "keys": {}}', '{"format": 1, "keys": {"a": "x"}}'])
def test_damaged_ring_is_refused(ring: KeyRing, text: str) -> None:
    ring.path.write_text(text)
    with pytest.raises(UsageError, match="not a key ring"):
        KeyRing.load_or_create(ring.path)


def test_representation_shows_no_key(ring: KeyRing) -> None:
    secrets_of_ring = json.loads(ring.path.read_text())
    assert secrets_of_ring["token_secret"] not in repr(ring)
    assert str(ring.token_secret) not in repr(ring)


def test_data_key_survives_wrapping_and_rotation(ring: KeyRing) -> None:
    data_key = new_data_key()
    wrapped = wrap(ring, data_key, PERSON)
    old = ring.active_key_id
    assert ring.rotate() == ring.active_key_id != old
    reloaded = KeyRing.load_or_create(ring.path)
    assert reloaded.active_key_id == ring.active_key_id
    assert wrapping_key_id(wrapped) == old
    assert unwrap(reloaded, wrapped, PERSON) == data_key
    assert wrapping_key_id(wrap(reloaded, data_key, PERSON)) == reloaded.active_key_id


def test_rotations_of_two_holders_both_stay(ring: KeyRing) -> None:
    other = KeyRing.load_or_create(ring.path)
    first, second = ring.rotate(), other.rotate()
    assert {first, second} <= set(KeyRing.load_or_create(ring.path).keys)


def test_wrapped_key_of_another_person_or_ring_does_not_open(ring: KeyRing, tmp_path: Path) -> None:
    wrapped = wrap(ring, new_data_key(), PERSON)
    with pytest.raises(DecryptionError):
        unwrap(ring, wrapped, OTHER)
    with pytest.raises(DecryptionError, match="holds no key"):
        unwrap(KeyRing.load_or_create(tmp_path / "second.json"), wrapped, PERSON)


def test_every_altered_byte_is_noticed(ring: KeyRing) -> None:
    data_key = new_data_key()
    wrapped = wrap(ring, data_key, PERSON)
    sealed = encrypt_field(data_key, "Zoë", "name")
    for index in range(len(wrapped)):
        with pytest.raises(DecryptionError):
            unwrap(ring, wrapped[:index] + bytes([wrapped[index] ^ 1]) + wrapped[index + 1 :], PERSON)
    for index in range(len(sealed)):
        with pytest.raises(DecryptionError):
            decrypt_field(data_key, sealed[:index] + bytes([sealed[index] ^ 1]) + sealed[index + 1 :], "name")
    for length in range(len(sealed)):
        with pytest.raises(DecryptionError):
            decrypt_field(data_key, sealed[:length], "name")


def test_field_opens_only_with_its_key_and_context() -> None:
    data_key = new_data_key()
    sealed = encrypt_field(data_key, "zoë@example.org", "email")
    assert decrypt_field(data_key, sealed, "email") == "zoë@example.org"
    assert encrypt_field(data_key, "zoë@example.org", "email") != sealed
    with pytest.raises(DecryptionError):
        decrypt_field(data_key, sealed, "name")
    with pytest.raises(DecryptionError):
        decrypt_field(new_data_key(), sealed, "email")


def test_tokens_are_stable_scoped_and_separate(ring: KeyRing) -> None:
    person = "Zoe@Example.org"
    tokens = [
        merchant_token(ring, "acct_1", person),
        merchant_token(ring, "acct_2", person),
        network_token(ring, person),
        card_fingerprint(ring, person),
    ]
    assert len({token[3:] for token in tokens}) == 4
    assert all(re.fullmatch(r"(mt|nt|fp)_[0-9a-f]{32}", token) for token in tokens)
    assert merchant_token(ring, "acct_1", " zoe@example.ORG ") == tokens[0]
    before = network_token(ring, person)
    ring.rotate()
    assert network_token(KeyRing.load_or_create(ring.path), person) == before
    assert merchant_token(ring, "acct_1", "2person") != merchant_token(ring, "acct_12", "person")


def test_tokens_of_two_rings_differ(ring: KeyRing, tmp_path: Path) -> None:
    assert network_token(ring, "a") != network_token(KeyRing.load_or_create(tmp_path / "second.json"), "a")


def test_network_prefix_hides_the_host(ring: KeyRing) -> None:
    token = network_prefix_token(ring, "203.0.113.7")
    assert re.fullmatch(r"ip_[0-9a-f]{32}", token)
    assert network_prefix_token(ring, "203.0.113.250") == token == network_prefix_token(ring, "::ffff:203.0.113.9")
    assert network_prefix_token(ring, "203.0.114.7") != token
    assert network_prefix_token(ring, "2001:db8:1:2::1") == network_prefix_token(ring, "2001:db8:1:ffff::9")
    assert network_prefix_token(ring, "2001:db8:2::1") != network_prefix_token(ring, "2001:db8:1::1")
    with pytest.raises(ValueError, match="does not appear"):
        network_prefix_token(ring, "300.1.1.1")
