"""The frames between a manager and its read workers: over a socket, each a kind, a length and a payload."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any

import orjson
from attrs import frozen

from teatree.contracts.settings import LimitSettings
from teatree.functions.query import Query
from teatree_manager.read_workers.app_call import AppCall
from teatree_manager.read_workers.live_work import KeptAnswer, LiveBatch

FRAME = struct.Struct(">BI")
HEAD = struct.Struct(">I")
NUMBER = struct.Struct(">Q")
"""On the control pipe: the job to interrupt. In a frame: the processor time that was used."""


class FrameKind(IntEnum):
    """The kind of a frame."""

    READY = 1
    """From a worker: it has started."""
    ASK = 2
    """To a worker: a `ReadJob`, pickled. Nothing else is pickled: a worker trusts its manager, never the reverse."""
    NEXT = 3
    """To a worker: return the next page of the last answer."""
    RELEASE = 4
    """To a worker: close the version's file. It is not answered."""
    ANSWER = 5
    """From a worker: a JSON head and a body, the first page or the next."""
    ERROR = 6
    """From a worker: a JSON head that is an error."""
    PLACE = 7
    """From a worker: a text, the place in a function's code where it is interrupted. Its answer may follow."""
    LOAD = 8
    """To a worker: JSON of an app's code and `import_ms_max`: import it. The answer is empty."""
    USED = 9
    """From a worker, before each of its answers: the microseconds of processor time that it has used in all."""


class ReadFault(StrEnum):
    """What an error is beside its code, if its manager does more than return it."""

    DAMAGED = "damaged"
    """The version's file."""
    REMOVED = "removed"
    """The version's file, before the worker opened it."""
    FULL = "full"
    """The process, whose apps may keep what they have."""
    OTHER_CODE = "other code"
    """The worker loaded other code of the app than the manager."""


@frozen
class ReadJob:
    """One read for a worker."""

    number: int
    """Distinguishes it from the worker's other jobs: an interrupt may arrive late."""
    version: int
    path: Path
    """The version's file."""
    served: int
    """The newest version for which this file answers."""
    work: Query | AppCall | LiveBatch | KeptAnswer
    limits: LimitSettings
    temp_bytes_max: int
    """Bytes of this worker's temporary files."""
    first_page_bytes_max: int
    page_bytes_max: int


def ask_frame(job: ReadJob) -> bytes:
    """Return the frame that gives a worker a job."""
    return frame(FrameKind.ASK, pickle.dumps(job, pickle.HIGHEST_PROTOCOL))


def load_frame(call: AppCall) -> bytes:
    """Return the frame that makes a worker import a call's app."""
    code = call.app
    members = {"name": code.name, "version": code.version, "code_hash": code.code_hash}
    return frame(FrameKind.LOAD, orjson.dumps({**members, "import_ms_max": call.import_ms_max}))


def read_job(payload: bytes) -> ReadJob:
    """Return the job of an `ASK` frame."""
    job: ReadJob = pickle.loads(payload)  # noqa: S301  it comes from our manager
    return job


def frame(kind: FrameKind, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return FRAME.pack(kind, len(payload)) + payload


def reply_frame(kind: FrameKind, head: Mapping[str, Any], body: bytes = b"") -> bytes:
    """Return a worker's frame."""
    raw = orjson.dumps(head)
    return b"".join((FRAME.pack(kind, HEAD.size + len(raw) + len(body)), HEAD.pack(len(raw)), raw, body))


def read_reply(payload: bytes) -> tuple[dict[str, Any], bytes]:
    """Return head and body of a worker's frame."""
    (length,) = HEAD.unpack_from(payload)
    return orjson.loads(payload[HEAD.size : HEAD.size + length]), payload[HEAD.size + length :]
