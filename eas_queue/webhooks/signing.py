"""How receivers know that a webhook is ours: Standard Webhooks (HMAC, a secret both sides have), and an Ed25519 key
whose public half is published. Both come from the same secrets; while they rotate, both can be read by old and new."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_INFO = b"eas_queue webhooks: Ed25519, version 1"


class Signatures:
    """*secrets*, `whsec_` and base64 each: the first signs alone where one signature has to do, all are accepted."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = tuple(secrets)

    def standard(self, message_id: str, at_s: int, body: bytes) -> dict[str, str]:
        """The headers of Standard Webhooks 1.0."""
        from standardwebhooks.webhooks import Webhook

        at, text = datetime.fromtimestamp(at_s, UTC), body.decode()
        signatures = (Webhook(secret).sign(message_id, at, text) for secret in self._secrets)
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(at_s),
            "webhook-signature": " ".join(signatures),
        }

    def ed25519(self, message: bytes) -> str:
        """The first secret's signature, 128 hexadecimal digits."""
        return _private_key(self._secrets[0]).sign(message).hex()

    def jwks(self) -> dict[str, Any]:
        """The public keys, RFC 7517 and 8037. Verifiers are out there that need `x` with its padding."""
        return {"keys": [_public_key(secret) for secret in self._secrets]}


def secret_bytes(secret: str) -> bytes:
    """Raises ValueError for what is no secret: `whsec_` and the base64 of 24 to 64 bytes."""
    prefix, _, encoded = secret.partition("_")
    raw = base64.b64decode(encoded, validate=True)
    if prefix != "whsec" or not 24 <= len(raw) <= 64:
        raise ValueError("not of the right form")
    return raw


# The library takes some megabytes, which only those who sign or publish keys pay for.
@functools.lru_cache(maxsize=16)
def _private_key(secret: str) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    seed = HKDF(algorithm=SHA256(), length=32, salt=None, info=_INFO).derive(secret_bytes(secret))
    return Ed25519PrivateKey.from_private_bytes(seed)


@functools.lru_cache(maxsize=16)
def _public_key(secret: str) -> dict[str, str]:
    raw = _private_key(secret).public_key().public_bytes_raw()
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "alg": "EdDSA",
        "use": "sig",
        "kid": hashlib.sha256(raw).hexdigest()[:16],
        "x": base64.urlsafe_b64encode(raw).decode(),
    }
