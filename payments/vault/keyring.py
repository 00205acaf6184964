"""The key ring: the keys that wrap the data keys of persons, and the secret behind every keyed token.

The ring is one JSON file of mode 0600. Wrapping keys rotate: a new one becomes active, old ones stay to unwrap what
they wrapped. The token secret never rotates, because tokens are join keys of history; it is separated by purpose with
HKDF (RFC 5869).
"""

import base64
import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from payments.errors import UsageError

KEY_BYTES = 32
_FORMAT = 1


@dataclass
class KeyRing:
    """Wrapping keys by id, which of them is active, and the token secret; every key has 32 bytes."""

    path: Path
    active_key_id: str
    keys: Mapping[str, bytes] = field(repr=False)
    token_secret: bytes = field(repr=False)
    _derived: dict[str, bytes] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def load_or_create(cls, path: Path) -> "KeyRing":
        """Return the ring at ``path``, made with one fresh key when the file does not exist.

        Several processes may call this at once: one of them creates the file, all read the same ring.

        Raises:
            UsageError: the file is readable by others, or is not a key ring.
        """
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(path):
                if not path.exists():
                    key_id = _new_key_id(())
                    first = cls(path, key_id, {key_id: secrets.token_bytes(KEY_BYTES)}, secrets.token_bytes(KEY_BYTES))
                    first._write()
        return cls._read(path)

    def rotate(self) -> str:
        """Add a fresh key to the file, make it the active one here and there, and return its id."""
        with _locked(self.path):
            stored = self._read(self.path)
            key_id = _new_key_id(stored.keys)
            self.keys = {**stored.keys, key_id: secrets.token_bytes(KEY_BYTES)}
            self.token_secret = stored.token_secret
            self.active_key_id = key_id
            self._derived.clear()
            self._write()
        return key_id

    def derived_key(self, purpose: str) -> bytes:
        """Return the 32-byte key for one purpose, derived from the token secret (HKDF-SHA-256, RFC 5869)."""
        if purpose not in self._derived:
            kdf = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=f"payments/{purpose}".encode())
            self._derived[purpose] = kdf.derive(self.token_secret)
        return self._derived[purpose]

    @classmethod
    def _read(cls, path: Path) -> "KeyRing":
        if path.stat().st_mode & 0o077:
            raise UsageError(f"The key ring {path} can be read by others: run chmod 600 on it.")
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format"] != _FORMAT:
                raise ValueError("unknown format")
            keys = {key_id: base64.b64decode(text, validate=True) for key_id, text in document["keys"].items()}
            token_secret = base64.b64decode(document["token_secret"], validate=True)
            active = document["active"]
            if active not in keys or any(len(key) != KEY_BYTES for key in (*keys.values(), token_secret)):
                raise ValueError("incomplete")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{path} is not a key ring ({error}): restore it from your backup.") from error
        return cls(path, active, keys, token_secret)

    def _write(self) -> None:
        document = {
            "format": _FORMAT,
            "active": self.active_key_id,
            "keys": {key_id: base64.b64encode(key).decode() for key_id, key in self.keys.items()},
            "token_secret": base64.b64encode(self.token_secret).decode(),
        }
        # mkstemp opens with mode 0600, so the keys are at no moment readable by others.
        handle, aside = tempfile.mkstemp(dir=self.path.parent, prefix=".ring-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(document, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            Path(aside).replace(self.path)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a ring file, so that two processes neither create it twice nor lose a rotation."""
    with path.with_name(f".{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _new_key_id(taken: Mapping[str, bytes] | tuple[()]) -> str:
    return f"k{len(taken) + 1}-{secrets.token_hex(4)}"
