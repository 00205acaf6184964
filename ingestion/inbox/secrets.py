"""The secrets that senders sign with: given by a setting, several at once while one replaces another, or made here."""

import os
import secrets
import tempfile
from pathlib import Path

from payments.errors import UsageError
from payments.settings import settings

_SHORTEST = 16


def secret_file() -> Path:
    """Return where the secret stands that is made when none is given."""
    return settings().home / "keys" / "webhook_secret"


def endpoint_secrets() -> tuple[str, ...]:
    """Return the secrets of ``PAYMENTS_WEBHOOK_SECRETS``, else the one of the state folder, made at first use.

    Raises:
        UsageError: a secret is too short to be one, or others may read the file.
    """
    given = settings().webhook_secrets
    if given is None:
        return (_own_secret(secret_file()),)
    found = tuple(secret for part in given.get_secret_value().split(",") if (secret := part.strip()))
    if not found or min(map(len, found)) < _SHORTEST:
        raise UsageError(f"PAYMENTS_WEBHOOK_SECRETS takes secrets of {_SHORTEST} characters or more, joined by commas.")
    return found


def _own_secret(path: Path) -> str:
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Written aside (mode 0600) and linked: of two processes one makes it, and nobody reads half of it.
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=".webhook-")
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(f"whsec_{secrets.token_hex(32)}\n")
                file.flush()
                os.fsync(file.fileno())
            Path(path).hardlink_to(aside)
        except FileExistsError:
            pass
        finally:
            Path(aside).unlink()
    if path.stat().st_mode & 0o077:
        raise UsageError(f"The webhook secret {path} can be read by others: run chmod 600 on it.")
    return path.read_text(encoding="ascii").strip()
