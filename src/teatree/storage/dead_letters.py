"""Dead letters: requests that were set aside, kept whole beside the chain for inspection.

The log drops a request some days after it was answered; its dead letter stays. The body is written before the letter
that describes it, and both before the manifest that holds the outcome, so an outcome `set_aside` always has its letter.
"""

from __future__ import annotations

from datetime import datetime

from attrs import frozen

from teatree.contracts.errors import Code, CorruptError, RequestError
from teatree.contracts.formats.codec import absent_if_default, tolerate_unknown_keys
from teatree.contracts.formats.requests import Request
from teatree.contracts.names import ANONYMOUS
from teatree.storage.objects.base import NotFoundError
from teatree.storage.objects.small_objects import read_object, write_object
from teatree.storage.versions.chain import Chain

_LETTER, _BODY = ".json", ".body"


@frozen
class DeadLetter:
    """One request that crashed its manager too often, without its body."""

    model: str
    function: str
    request_id: str
    seq: int
    """Its place in the log."""
    at: datetime
    """When JetStream accepted it."""
    tries: int
    """Managers that crashed on it."""
    content_type: str
    args: str | None
    """The arguments beside an Arrow body: one line of JSON."""
    body_bytes: int
    group: str | None = None
    sender: str = ANONYMOUS
    traceparent: str | None = None
    index: int = 0
    """Its place among the requests of its message."""


absent_if_default(DeadLetter)
tolerate_unknown_keys(DeadLetter)


def write_dead_letter(chain: Chain, request: Request, tries: int) -> None:
    """Keep a request that is about to be set aside; the same request again changes nothing."""
    letter = DeadLetter(
        model=request.model,
        function=request.function,
        request_id=request.request_id,
        seq=request.seq,
        at=request.at,
        tries=tries,
        content_type=request.content_type,
        args=request.args,
        body_bytes=len(request.body),
        group=request.group,
        sender=request.sender,
        traceparent=request.traceparent,
        index=request.index,
    )
    chain.store.put(_key(chain, request.seq, _BODY), request.body)
    write_object(chain.store, _key(chain, request.seq, _LETTER), letter)


def list_dead_letters(chain: Chain) -> list[DeadLetter]:
    """Return the letters of a model, in the order of the log."""
    keys = [info.key for info in chain.store.list(f"{chain.folder}/dead/") if info.key.endswith(_LETTER)]
    return [found for key in sorted(keys) if (found := _read(chain, key)) is not None]


def find_dead_letter(chain: Chain, request_id: str) -> DeadLetter:
    """Return the letter of a request, the newest if there are several; raises `unknown_request`."""
    found = [letter for letter in list_dead_letters(chain) if letter.request_id == request_id]
    if not found:
        raise RequestError(
            Code.UNKNOWN_REQUEST,
            f"{chain.model} has no dead letter of the request {request_id[:80]!r}.",
            where="request_id",
            hint=f"`teatree dead {chain.model}` lists them.",
        )
    return found[-1]


def read_dead_body(chain: Chain, letter: DeadLetter) -> bytes:
    """Return the body of a request that was set aside; raises `corrupt` if it is missing or incomplete."""
    key = _key(chain, letter.seq, _BODY)
    try:
        body = chain.store.get(key)
    except NotFoundError:
        body = b""
    if len(body) != letter.body_bytes:
        raise CorruptError(f"The dead letter's body has {len(body)} bytes, not {letter.body_bytes}.", where=key)
    return body


def drop_dead_letter(chain: Chain, letter: DeadLetter) -> None:
    """Delete a dead letter; the request's outcome stays."""
    chain.store.delete([_key(chain, letter.seq, _LETTER), _key(chain, letter.seq, _BODY)])


def expire_dead_letters(chain: Chain, before: datetime) -> int:
    """Delete the letters of requests that were accepted before a moment; return how many."""
    old = [letter for letter in list_dead_letters(chain) if letter.at < before]
    for letter in old:
        drop_dead_letter(chain, letter)
    return len(old)


def _key(chain: Chain, seq: int, suffix: str) -> str:
    return f"{chain.folder}/dead/{seq:020d}{suffix}"


def _read(chain: Chain, key: str) -> DeadLetter | None:
    return read_object(chain.store, key, "The dead letter", DeadLetter)
