"""Signatures, read by the official library and by the steps that fal publishes for its receivers."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import time

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from eas_queue.webhooks.signing import Signatures, secret_bytes

OLD = "whsec_" + base64.b64encode(b"o" * 24).decode()
NEW = "whsec_" + base64.b64encode(b"n" * 32).decode()


@pytest.mark.parametrize("secret", [OLD, NEW])
def test_while_secrets_rotate_a_standard_webhook_is_read_with_either(secret: str) -> None:
    body = b'{"type": "request.succeeded"}'

    headers = Signatures([NEW, OLD]).standard("the-id", int(time.time()), body)

    assert Webhook(secret).verify(body, headers) == {"type": "request.succeeded"}
    assert (headers["webhook-id"], len(headers["webhook-signature"].split(" "))) == ("the-id", 2)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body + b" ", headers)


def test_the_first_secret_signs_and_all_public_keys_are_published() -> None:
    message, both = b"a\nb\nc\nd", Signatures([NEW, OLD])

    signature = both.ed25519(message)

    first, second = (
        Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"])) for key in both.jwks()["keys"]
    )
    first.verify(bytes.fromhex(signature), message)
    second.verify(bytes.fromhex(Signatures([OLD]).ed25519(message)), message)
    with pytest.raises(InvalidSignature):
        second.verify(bytes.fromhex(signature), message)
    assert len(signature) == 128


def test_public_keys_have_the_form_that_verifiers_read() -> None:
    keys = Signatures([NEW, OLD]).jwks()["keys"]

    assert [(key["kty"], key["crv"], len(key["x"])) for key in keys] == [("OKP", "Ed25519", 44)] * 2
    assert len({key["kid"] for key in keys}) == 2


def test_a_key_is_the_same_for_ever() -> None:
    """Receivers keep public keys for a day, and no two processes agree on a key but by its secret."""
    (key,) = Signatures(["whsec_" + base64.b64encode(bytes(range(24))).decode()]).jwks()["keys"]

    assert hashlib.sha256(key["x"].encode()).hexdigest()[:16] == "7cdac2cebb2df12b"


@pytest.mark.parametrize(
    "text", ["whsec_", "whsec_AAAA", "secret_" + "A" * 32, "whsec_" + "A" * 92, "whsec_!" + "A" * 31]
)
def test_what_is_no_secret_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  of three kinds
        secret_bytes(text)


def test_only_who_signs_pays_for_the_library() -> None:
    code = "import sys, eas_queue.webhooks.signing; print('cryptography.hazmat' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
