"""Who may do what. Reading is as open as the host; changes need a reason to trust the caller."""

from __future__ import annotations

import enum
import hmac
import ipaddress
import logging
from typing import Final
from urllib.parse import urlsplit

from flask import Request

from flask_comfy_files.config import Settings
from flask_comfy_files.core.errors import AccessDeniedError, TokenRequiredError

_log = logging.getLogger(__name__)

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_FORWARDING: Final = frozenset(
    {
        "forwarded",
        "via",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-original-host",
        "cf-connecting-ip",
        "true-client-ip",
        "fastly-client-ip",
        "client-ip",
    }
)
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


class Action(enum.StrEnum):
    """What a request does, as ``AUTHORIZE`` is asked; what cannot be undone is a ``delete`` to it, too."""

    READ = "read"
    WRITE = "write"
    DELETE = "delete"
    DESTROY = "destroy"


def require(request: Request, action: Action, settings: Settings) -> None:
    """Let a request pass that may do what its route does.

    Raises:
        TokenRequiredError: A token is configured, and the request has no valid one.
        AccessDeniedError: It comes from another site, or from somebody we have no reason to trust.
    """
    _refuse_cross_site(request)
    if settings.token and _has_token(request, settings.token):
        return
    if settings.authorize is not None:
        if _is_authorized(request, action, settings):
            return
        raise TokenRequiredError if settings.token else AccessDeniedError("This is not allowed.")
    if settings.token:
        if action is Action.READ and settings.public_read:
            return
        raise TokenRequiredError
    if action is not Action.READ and not is_local(request):
        raise AccessDeniedError(
            "Without a setting for access, changes are made from this machine only. "
            "Set COMFY_FILES_TOKEN or COMFY_FILES_AUTHORIZE to allow others.",
        )
    if action is Action.DESTROY and not settings.trust_loopback:
        raise AccessDeniedError(
            "What cannot be undone needs COMFY_FILES_TOKEN or COMFY_FILES_AUTHORIZE, "
            "or COMFY_FILES_TRUST_LOOPBACK = True for requests from this machine.",
        )


def _is_authorized(request: Request, action: Action, settings: Settings) -> bool:
    if action is Action.READ and settings.token and settings.public_read:
        return True
    authorize = settings.authorize
    asked = Action.DELETE if action is Action.DESTROY else action
    try:
        # Only True itself: a response or a coroutine is truthy, too.
        return authorize is not None and authorize(request, str(asked)) is True
    except (Exception, SystemExit):  # noqa: BLE001 - the host's code: whatever it raises is a no
        _log.exception("COMFY_FILES_AUTHORIZE failed, so the request is refused")
        return False


def _has_token(request: Request, tokens: tuple[str, ...]) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return False
    candidate = given.strip().encode("utf-8", "replace")
    # All are compared, each in constant time: the time taken says nothing about any of them.
    return any(
        [  # noqa: C419 - a generator would stop at the first
            hmac.compare_digest(candidate, token.encode("ascii")) for token in tokens
        ]
    )


def _refuse_cross_site(request: Request) -> None:
    """Refuse a change that another site's page makes with this user's browser, whatever it brings.

    Raises:
        AccessDeniedError: It is one.
    """
    if request.method in _SAFE_METHODS:
        return
    is_cross_site = request.headers.get("Sec-Fetch-Site", "").strip().lower() == "cross-site"
    origin = request.headers.get("Origin")
    if is_cross_site or (origin is not None and not _is_own_origin(origin, request)):
        raise AccessDeniedError("A request that another site makes in a browser changes nothing.")


def _is_own_origin(origin: str, request: Request) -> bool:
    try:
        parts = urlsplit(origin.strip().lower())
    except ValueError:
        return False
    if parts.scheme not in _DEFAULT_PORTS or not parts.netloc or parts.path or parts.query:
        return False
    port = _DEFAULT_PORTS[parts.scheme]
    host = request.headers.get("Host", "").strip().lower()
    return parts.netloc.removesuffix(port) == host.removesuffix(port)


def is_local(request: Request) -> bool:
    """Say whether a request comes from this machine itself, as far as that can be told.

    The peer is a loopback address, the host that it asks for is a loopback name, and no header says
    that it was forwarded. A proxy on this machine that adds no header cannot be told apart.
    """
    if "werkzeug.proxy_fix.orig" in request.environ:
        return False
    names = [name.lower() for name, _ in request.headers]
    if any(name in _FORWARDING or name.startswith("x-forwarded") for name in names):
        return False
    host = request.headers.get("Host", "").strip().lower()
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    return _is_loopback(request.environ.get("REMOTE_ADDR") or "") and (
        name == "localhost" or _is_loopback(name.removeprefix("[").removesuffix("]"))
    )


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback
