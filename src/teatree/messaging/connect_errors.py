"""Errors of a connection to NATS, for good or for a time, and the TLS context for it."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from teatree.contracts.errors import Code, OperatorError, RetryError, TeatreeError
from teatree.contracts.settings import NatsSettings
from teatree.messaging.frames import cause_text, show_url
from teatree.messaging.jetstream import IS_IT_UP

_SCHEMES = frozenset({"nats", "tls"})


class PlainServerError(Exception):
    """TLS was asked for, and the server offers none."""


def check_url(url: str) -> None:
    """Raise `wrong_configuration` for a URL that names no NATS server."""
    try:
        parts = urlsplit(url if "//" in url else f"nats://{url}")
        usable = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise OperatorError(
            Code.WRONG_CONFIGURATION,
            "TEATREE_NATS_URL is not the address of a NATS server.",
            where="TEATREE_NATS_URL",
            hint="Use nats://host:4222, or tls://host:4222 for a server that must use TLS.",
        )


def wants_tls(settings: NatsSettings) -> bool:
    """Return whether a connection without TLS is refused; else the server decides."""
    return settings.ca is not None or settings.url.startswith("tls://")


def client_context(settings: NatsSettings) -> ssl.SSLContext | None:
    """Return what certificates are checked with: the authorities of TEATREE_NATS_CA; None: the system's, if needed."""
    if settings.ca is None:
        return None
    try:
        return ssl.create_default_context(cafile=settings.ca)
    except (OSError, ssl.SSLError) as e:
        raise OperatorError(
            Code.WRONG_CONFIGURATION,
            f"The authorities' certificates cannot be read: {cause_text(e)}.",
            where=settings.ca,
            hint="TEATREE_NATS_CA names a PEM file.",
        ) from None


def connect_error(error: Exception, settings: NatsSettings) -> TeatreeError:
    """Return what the failure of a first connection means."""
    place = show_url(settings.url)
    text = cause_text(error).lower()
    match error:
        case ssl.SSLCertVerificationError():
            return _wrong(
                f"The certificate of NATS is not trusted: {error.verify_message.rstrip('.')}.",
                place,
                "Name the PEM file of the authority that signed it in TEATREE_NATS_CA; "
                "the address must be one that the certificate is for.",
            )
        case ssl.SSLError():
            return _wrong(
                f"TLS with NATS failed: {cause_text(error)}.",
                place,
                "Compare the server's `tls` block with this client.",
            )
        case PlainServerError():
            return _wrong(
                "This NATS offers no TLS, and TLS is asked for.",
                place,
                "Configure `tls` in the server, or use nats:// and no TEATREE_NATS_CA.",
            )
    refused = "authorization" in text or "authentication" in text or "permissions violation" in text
    if refused and "timeout" not in text:
        return OperatorError(
            Code.NOT_AUTHORIZED,
            "NATS refused the user or the password.",
            where=place,
            hint="Check TEATREE_NATS_USER and TEATREE_NATS_PASSWORD.",
        )
    return RetryError(Code.UNAVAILABLE, f"NATS cannot be reached: {cause_text(error)}.", where=place, hint=IS_IT_UP)


def denied_error(text: str, subject: str) -> OperatorError:
    """Return the error for a subject that this user may not use."""
    return OperatorError(
        Code.NOT_AUTHORIZED,
        f"NATS does not let this user use {subject}: {text}.",
        where=subject,
        hint="Grant it in the server's `permissions`, or use another user.",
    )


def _wrong(message: str, place: str, hint: str) -> OperatorError:
    return OperatorError(Code.WRONG_CONFIGURATION, message, where=place, hint=hint)
