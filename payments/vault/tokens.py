"""Keyed tokens: stable stand-ins for persons, cards and networks that nobody can compute without the key ring.

A token is HMAC-SHA-256 (RFC 2104) under a key of its own purpose, cut to 128 bits and written as 32 hexadecimal digits
behind a prefix. Tokens of two purposes, or of one person at two merchants, cannot be linked without the ring.
"""

import hmac
import ipaddress
import unicodedata

from payments.vault.keyring import KeyRing

_TOKEN_BYTES = 16


def merchant_token(ring: KeyRing, merchant_id: str, person: str) -> str:
    """Return the token (``mt_...``) of a person at one merchant; ``person`` identifies them, as an e-mail does."""
    return "mt_" + _token(ring, "merchant-token", merchant_id, _normalized(person))


def network_token(ring: KeyRing, person: str) -> str:
    """Return the token of a person across all merchants (``nt_...``), for fraud detection only."""
    return "nt_" + _token(ring, "network-token", _normalized(person))


def card_fingerprint(ring: KeyRing, card_reference: str) -> str:
    """Return the token of a card (``fp_...``) from the processor's reference to it."""
    return "fp_" + _token(ring, "card-fingerprint", card_reference)


def bank_account_token(ring: KeyRing, account: str) -> str:
    """Return the token (``ba_...``) of a bank account from its IBAN or other number; spaces and case do not count."""
    return "ba_" + _token(ring, "bank-account", "".join(account.split()).upper())


def bank_reference_token(ring: KeyRing, reference: str) -> str:
    """Return the token (``br_...``) of a bank's reference that may not be kept as it is."""
    return "br_" + _token(ring, "bank-reference", reference)


def network_prefix_token(ring: KeyRing, ip: str) -> str:
    """Return the token of the network of an address (``ip_...``): its /24 for IPv4, its /48 for IPv6.

    Raises:
        ValueError: ``ip`` is no address.
    """
    address = ipaddress.ip_address(ip)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    network = ipaddress.ip_network((address, 24 if address.version == 4 else 48), strict=False)
    return "ip_" + _token(ring, "network-prefix", str(network))


def _normalized(person: str) -> str:
    return unicodedata.normalize("NFKC", person).strip().casefold()


def _token(ring: KeyRing, purpose: str, *parts: str) -> str:
    # Each part is preceded by its length: ("ab", "c") and ("a", "bc") are different messages.
    message = b"".join(len(part.encode()).to_bytes(4) + part.encode() for part in parts)
    return hmac.digest(ring.derived_key(purpose), message, "sha256")[:_TOKEN_BYTES].hex()
