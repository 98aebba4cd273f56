"""JetStream's answers: receipts, and its errors as ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from teatree.contracts.errors import Code, OperatorError, RequestError, RetryError, TeatreeError

NO_RESPONDERS = 503
"""Status of a reply that the server itself sends when there is no subscriber."""
IS_IT_UP = "Is NATS running with JetStream (`teatree up`)?"

_FULL = frozenset({10047, 10077, 10122, 10167, 10023})
"""Account storage, stream limits, maximum bytes, no room on disk, insufficient resources."""
_BUSY = frozenset({10210, 10211, 10008, 10014, 10025, 10074})
"""Too many open batches, and a server or cluster that is not ready yet."""
_TOO_LARGE = frozenset({10054, 10097})
ERROR_NO_STREAM = 10059
ERROR_NO_MESSAGE = 10037
ERROR_STREAM_EXISTS = 10058
ERROR_BATCH_INCOMPLETE = 10176


@frozen
class PubAck:
    """JetStream's receipt: the message is on disk."""

    stream: str
    seq: int
    duplicate: bool = False
    """The stream knew the `Nats-Msg-Id` already and stored nothing new."""


def read_ack(body: bytes, where: str) -> PubAck:
    """Return a JetStream receipt; raises the error that it carries instead."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or ("error" not in answer and "stream" not in answer):
        raise RetryError(
            Code.UNAVAILABLE, f"The answer on {where} is no receipt of a stream.", where=where, hint=IS_IT_UP
        )
    if "error" in answer:
        raise api_error(answer["error"], where)
    return PubAck(answer["stream"], int(answer["seq"]), bool(answer.get("duplicate", False)))


class ApiError(OperatorError):
    """JetStream's refusal, with its number for callers that handle it."""

    def __init__(self, code: Code, message: str, *, number: int, where: str, hint: str | None = None) -> None:
        super().__init__(code, message, where=where, hint=hint)
        self.number = number


def api_error(error: Mapping[str, Any], where: str) -> TeatreeError:
    """Return the error that a JetStream answer names, in our tree."""
    number = int(error.get("err_code", 0))
    text = str(error.get("description", "no description"))
    if number in _FULL or "maximum bytes exceeded" in text or "maximum messages exceeded" in text:
        return RetryError(
            Code.LOG_FULL,
            f"The stream is full: {text} (NATS error {number}).",
            where=where,
            hint="Wait until applied requests are purged, or give the stream more bytes.",
        )
    if number in _BUSY:
        return RetryError(Code.BUSY, f"JetStream is busy: {text} (NATS error {number}).", where=where)
    if number in _TOO_LARGE:
        return RequestError(Code.BODY_TOO_LARGE, f"JetStream refused it: {text} (NATS error {number}).", where=where)
    if error.get("code") == NO_RESPONDERS:
        return RetryError(
            Code.UNAVAILABLE, f"JetStream is not ready: {text} (NATS error {number}).", where=where, hint=IS_IT_UP
        )
    return ApiError(
        Code.WRONG_CONFIGURATION, f"JetStream refused it: {text} (NATS error {number}).", number=number, where=where
    )
