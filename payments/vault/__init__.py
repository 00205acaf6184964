"""Key ring, envelope encryption per person, and keyed tokens."""

from payments.vault.envelope import (
    DecryptionError,
    decrypt_bytes,
    decrypt_field,
    encrypt_bytes,
    encrypt_field,
    new_data_key,
    unwrap,
    wrap,
    wrapping_key_id,
)
from payments.vault.keyring import KeyRing
from payments.vault.tokens import (
    bank_account_token,
    bank_reference_token,
    card_fingerprint,
    merchant_token,
    network_prefix_token,
    network_token,
)

__all__ = [
    "DecryptionError",
    "KeyRing",
    "bank_account_token",
    "bank_reference_token",
    "card_fingerprint",
    "decrypt_bytes",
    "decrypt_field",
    "encrypt_bytes",
    "encrypt_field",
    "merchant_token",
    "network_prefix_token",
    "network_token",
    "new_data_key",
    "unwrap",
    "wrap",
    "wrapping_key_id",
]
