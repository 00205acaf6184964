"""The signature of a webhook, by Stripe's scheme v1: a timed HMAC-SHA-256 over the body.

The header ``Stripe-Signature`` reads ``t=<seconds since 1970>,v1=<hex>[,v1=<hex>...]``; other schemes in it do not
count. What is signed is the time as written, a dot, and the bytes of the body.
"""

import hmac
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

HEADER = "Stripe-Signature"
TOLERANCE = timedelta(seconds=300)
_TIME = re.compile(r"[0-9]{1,11}")


class SignatureError(Exception):
    """A delivery that nobody who knows a secret has signed in time; the message says in one word why."""


def sign(secret: str, body: bytes, at: datetime) -> str:
    """Return the header with which a sender that knows the secret sends the body at a moment."""
    seconds = str(int(at.timestamp()))
    return f"t={seconds},v1={_digest(secret, seconds, body)}"


def verify(header: str | None, body: bytes, secrets: Sequence[str], now: datetime) -> datetime:
    """Return the moment at which the body was signed with one of the secrets.

    Every pair of signature and secret is compared in constant time, so an answer's delay tells nothing of either.

    Raises:
        SignatureError: no signature, a wrong one, or one older or newer than the tolerance.
    """
    parts = [part.strip().partition("=")[::2] for part in (header or "").split(",")]
    times = [value for name, value in parts if name == "t"]
    signatures = [value for name, value in parts if name == "v1"]
    if len(times) != 1 or not signatures or not _TIME.fullmatch(times[0]):
        raise SignatureError("unsigned")
    expected = [_digest(secret, times[0], body) for secret in secrets]
    matches = [hmac.compare_digest(given.encode(), own.encode()) for given in signatures for own in expected]
    if not any(matches):
        raise SignatureError("wrong signature")
    signed_at = datetime.fromtimestamp(int(times[0]), UTC)
    if abs(now - signed_at) > TOLERANCE:
        raise SignatureError("outside the time window")
    return signed_at


def _digest(secret: str, seconds: str, body: bytes) -> str:
    return hmac.digest(secret.encode(), seconds.encode() + b"." + body, "sha256").hex()
