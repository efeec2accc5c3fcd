"""What clients call a service: the name of a base model, or a `tinker://` path; and the sessions that stand for it.

A sampling session holds nothing but such a name, so its id says it all: it needs no place in Redis and never ends.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from typing import Any

from werkzeug.exceptions import NotFound

from eas_queue.engine import errors
from eas_queue.engine.service import ALIAS, ALIAS_PARTS_MOST, NAME, Services

PATH_SCHEME = "tinker://"
NAME_MOST = 512  # characters of a model's name or path
_ID = re.compile(r"[0-9a-f]{32}\.[A-Za-z0-9_-]{2,3000}")


class UnknownModel(NotFound):
    """Not the name of a service, nor an alias of one."""

    def __init__(self, name: str) -> None:
        alias = "/".join(name.removeprefix(PATH_SCHEME).split("/")[:ALIAS_PARTS_MOST])
        super().__init__(
            f"model {name[:140]!r} is not served here: no service has this name or alias "
            f"(operator: add aliases = [{alias[:140]!r}] to one of the services)"
        )


class UnknownSession(NotFound):
    """Not the id of a sampling session."""

    def __init__(self, session: str) -> None:
        super().__init__(
            f"there is no sampling session {session[:140]!r}: POST /api/v1/create_sampling_session makes one"
        )


def asked(values: dict[str, Any]) -> str | None:
    """The model that a body names, None where it names none. Raises InvalidRequest."""
    path, model = _text(values, "model_path"), _text(values, "base_model")
    if path is not None and not path.startswith(PATH_SCHEME):
        raise errors.InvalidRequest(
            f"model_path {path[:140]!r} does not begin with {PATH_SCHEME}: after it comes an alias or name of a service"
        )
    return path or model


def service_of(services: Services, name: str) -> str:
    """The service behind what `asked` found, whether served or not. Raises UnknownModel for what can't be one."""
    if name.startswith(PATH_SCHEME):
        service = services.name_of_path(name.removeprefix(PATH_SCHEME))
    else:
        service = services.name_of(name) if ALIAS.fullmatch(name) else ""
    if NAME.fullmatch(service) is None:
        raise UnknownModel(name)
    return service


def is_path(name: str) -> bool:
    return name.startswith(PATH_SCHEME)


def session_id(name: str, seed: str) -> str:
    """A sampling session for this model. *seed*: what is to give the same id when it comes again, '' nothing."""
    unique = hashlib.sha256(f"{seed}\n{name}".encode()).hexdigest()[:32] if seed else secrets.token_hex(16)
    return f"{unique}.{base64.urlsafe_b64encode(name.encode()).decode().rstrip('=')}"


def of_session(text: str) -> str | None:
    """The model of a sampling session, None for what is no id of one."""
    if not _ID.fullmatch(text):
        return None
    coded = text.partition(".")[2]
    try:
        name = base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4)).decode()
    except (ValueError, binascii.Error):
        return None
    return name if 0 < len(name) <= NAME_MOST and name.isascii() and name.isprintable() else None


def _text(values: dict[str, Any], member: str) -> str | None:
    value = values.get(member)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > NAME_MOST or not value.isascii() or not value.isprintable():
        raise errors.InvalidRequest(f"{member} must be a text of at most {NAME_MOST} printable ASCII characters")
    return value
