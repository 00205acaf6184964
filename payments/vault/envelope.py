"""Envelope encryption: a person has a data key, wrapped by a key of the ring; fields are encrypted under the data key.

Both layers are AES-256-GCM (NIST SP 800-38D) with random 96-bit nonces. Layouts, in bytes:

- wrapped key: version (1) | length of the key id (1) | key id | nonce (12) | ciphertext and tag (48)
- field or file: version (1) | nonce (12) | ciphertext and tag

What stands before the nonce, and the subject id or context, is authenticated with the ciphertext: a value copied to
another person or another column does not decrypt.
"""

import os
import secrets
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from payments.vault.keyring import KEY_BYTES, KeyRing

_VERSION = b"\x01"
_NONCE_BYTES = 12
_TAG_BYTES = 16


class DecryptionError(Exception):
    """A ciphertext that was altered, moved to another place, or whose key is not the given one."""


def new_data_key() -> bytes:
    """Return a fresh data key (32 bytes)."""
    return secrets.token_bytes(KEY_BYTES)


def wrap(ring: KeyRing, data_key: bytes, subject_id: UUID | str) -> bytes:
    """Encrypt a person's data key under the active key of the ring, bound to the subject id."""
    key_id = ring.active_key_id.encode()
    header = _VERSION + bytes([len(key_id)]) + key_id
    nonce = os.urandom(_NONCE_BYTES)
    sealed = AESGCM(ring.keys[ring.active_key_id]).encrypt(nonce, data_key, header + _subject(subject_id))
    return header + nonce + sealed


def wrapping_key_id(wrapped: bytes) -> str:
    """Return the id of the ring's key that a wrapped data key names.

    Raises:
        DecryptionError: the bytes are no wrapped key.
    """
    header, _ = _split_wrapped(wrapped)
    return header[2:].decode()


def unwrap(ring: KeyRing, wrapped: bytes, subject_id: UUID | str) -> bytes:
    """Return the data key that ``wrap`` sealed for this subject.

    Raises:
        DecryptionError: the bytes were altered, belong to another subject, or name a key that the ring does not hold.
    """
    header, rest = _split_wrapped(wrapped)
    key = ring.keys.get(header[2:].decode())
    if key is None:
        raise DecryptionError(f"The key ring holds no key {header[2:].decode()!r}.")
    return _open(key, rest, header + _subject(subject_id))


def encrypt_field(data_key: bytes, plaintext: str, context: str) -> bytes:
    """Encrypt one text under a data key, bound to ``context`` (the place it belongs to, such as ``email``)."""
    return encrypt_bytes(data_key, plaintext.encode(), context)


def decrypt_field(data_key: bytes, ciphertext: bytes, context: str) -> str:
    """Return the text that ``encrypt_field`` sealed with the same key and context.

    Raises:
        DecryptionError: the bytes were altered, or key or context differ.
    """
    return decrypt_bytes(data_key, ciphertext, context).decode()


def encrypt_bytes(data_key: bytes, plaintext: bytes, context: str) -> bytes:
    """Encrypt the bytes of a file under a data key, bound to ``context``, as ``encrypt_field`` does a text."""
    nonce = os.urandom(_NONCE_BYTES)
    return _VERSION + nonce + AESGCM(data_key).encrypt(nonce, plaintext, _VERSION + context.encode())


def decrypt_bytes(data_key: bytes, ciphertext: bytes, context: str) -> bytes:
    """Return the bytes that ``encrypt_bytes`` sealed with the same key and context.

    Raises:
        DecryptionError: the bytes were altered, or key or context differ.
    """
    if ciphertext[:1] != _VERSION:
        raise DecryptionError("The ciphertext has an unknown version.")
    return _open(data_key, ciphertext[1:], _VERSION + context.encode())


def _split_wrapped(wrapped: bytes) -> tuple[bytes, bytes]:
    if len(wrapped) < 2 or wrapped[:1] != _VERSION:
        raise DecryptionError("The wrapped key has an unknown version.")
    end = 2 + wrapped[1]
    if not wrapped[2:end].isascii():
        raise DecryptionError("The wrapped key has no readable key id.")
    return wrapped[:end], wrapped[end:]


def _open(key: bytes, sealed: bytes, associated: bytes) -> bytes:
    if len(sealed) < _NONCE_BYTES + _TAG_BYTES:
        raise DecryptionError("The ciphertext is too short.")
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], associated)
    except InvalidTag:
        raise DecryptionError("The ciphertext was altered or belongs elsewhere.") from None


def _subject(subject_id: UUID | str) -> bytes:
    return str(subject_id).encode()
