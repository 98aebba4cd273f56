"""Frames: messages as the bytes of NATS' protocol, and the texts and checks around them."""

from __future__ import annotations

from urllib.parse import urlsplit

from teatree.contracts.errors import Code, RequestError


def encode_frame(subject: str, body: bytes, block: bytes, reply: str, size_bytes_max: int) -> bytes:
    """Return a PUB or HPUB; raises `body_too_large` for what the server would not take."""
    size = len(block) + len(body)
    if size > size_bytes_max:
        raise RequestError(
            Code.BODY_TOO_LARGE,
            f"The message has {size} bytes with its headers; the server takes {size_bytes_max}.",
            where=subject,
            hint="Send fewer rows at a time, or store a file and send `load` with its address.",
        )
    address = f"{subject} {reply}" if reply else subject
    if block:
        return b"HPUB %b %d %d\r\n%b%b\r\n" % (address.encode(), len(block), size, block, body)
    return b"PUB %b %d\r\n%b\r\n" % (address.encode(), size, body)


def show_url(url: str) -> str:
    """Return a URL without the user and the password that it may carry."""
    parts = urlsplit(url if "//" in url else f"nats://{url}")
    return f"{parts.scheme}://{parts.netloc.rsplit('@', 1)[-1]}"


def check_subject(subject: str) -> None:
    """Raise `bad_name` for what would break the protocol's line."""
    if not subject or not subject.isprintable() or " " in subject:
        raise RequestError(Code.BAD_NAME, f"{subject[:80]!r} is not a subject.", where="subject")


def reply_subject(raw: bytes) -> str:
    """Return the subject of a reply as it came from the wire, "" for one to which nothing can be sent."""
    subject = raw.decode("utf-8", "replace")
    return subject if subject.isprintable() and " " not in subject and subject.encode() == raw else ""


def cause_text(error: BaseException) -> str:
    """Return the text of an error of the library or the network, to be put into a sentence."""
    return (str(error) or type(error).__name__).removeprefix("nats: ").rstrip(".")
