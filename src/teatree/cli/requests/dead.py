"""`teatree dead`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from teatree.cli.exits import usage
from teatree.cli.options import SENDER_DEFAULT, ModelName, SenderCommon
from teatree.cli.output import Output, size_text
from teatree.cli.requests.receipts import print_receipt
from teatree.cli.running import with_session, with_store

if TYPE_CHECKING:
    from teatree.client.sending.receipt import Receipt
    from teatree.client.session import Session
    from teatree.storage.dead_letters import DeadLetter

SHOWN_CHARS_MAX = 4_000
"""Characters of a body that are printed; --save writes all of it."""
TIMEOUT_MS = 60_000


# More than fifty lines: its options and their help.
def dead(
    model: ModelName,
    request_id: str | None = None,
    /,
    *,
    save: Path | None = None,
    send: Annotated[bool, Parameter(negative="")] = False,
    drop: Annotated[bool, Parameter(negative="")] = False,
    timeout_ms: int = TIMEOUT_MS,
    common: SenderCommon = SENDER_DEFAULT,
) -> None:
    """List requests that were set aside, show one, or send it again.

    They were set aside because they crashed their manager.

    Example: teatree dead sales

    Example: teatree dead sales 0198c2f0-… --send

    Parameters
    ----------
    model
        The model's name.
    request_id
        Show this one in full.
    save
        Write its body into this file.
    send
        Send it again under a new id, once the cause of the crash is repaired, and wait for the outcome.
    drop
        Delete it; its outcome stays. With --send, only once it is done.
    timeout_ms
        How long to wait for the outcome.
    """
    output = Output(json=common.json)
    if request_id is None:
        if save or send or drop:
            raise usage("--save, --send and --drop need a request id.", f"`teatree dead {model}` lists their ids.")
        _print_all(output, model, with_store(common, lambda s: _letters(s, model)))
        return
    wanted = request_id

    async def look(session: Session) -> tuple[DeadLetter, bytes]:
        return await session.model(model).dead_letter(wanted)

    letter, body = with_store(common, look)
    if save is not None:
        save.write_bytes(body)
        output.remark(f"{size_text(len(body))} were written to {save}.")

    async def again(session: Session) -> Receipt:
        return await session.model(model).send_again(letter, body, timeout_ms=timeout_ms)

    if send:
        print_receipt(output, with_session(common, again))
    if drop:
        with_store(common, lambda s: asyncio.to_thread(_forget, s, letter))
        output.remark(f"The dead letter of {wanted} was deleted.")
    if not (send or drop or save):
        _print_one(output, letter, body)


async def _letters(session: Session, model: str) -> list[DeadLetter]:
    from teatree.client.versions.pull import check_model  # noqa: PLC0415

    letters = await session.model(model).dead_letters()
    if not letters:
        await asyncio.to_thread(check_model, session.model(model).chain())
    return letters


def _forget(session: Session, letter: DeadLetter) -> None:
    from teatree.storage.dead_letters import drop_dead_letter  # noqa: PLC0415

    drop_dead_letter(session.model(letter.model).chain(), letter)


def _print_all(output: Output, model: str, letters: list[DeadLetter]) -> None:
    if output.json:
        for letter in letters:
            output.line(letter)
        return
    if not letters:
        output.remark(f"No request to {model} was set aside.")
        return
    output.table(
        ("number", "request", "function", "accepted", "managers lost", "size"),
        ((n.seq, n.request_id, n.function, n.at, n.tries, size_text(n.body_bytes)) for n in letters),
        right=("number", "managers lost", "size"),
    )


def _print_one(output: Output, letter: DeadLetter, body: bytes) -> None:
    from teatree.contracts.formats.codec import unstructure  # noqa: PLC0415

    arguments = _arguments(letter, body)
    if output.json:
        output.line({**unstructure(letter), "arguments": arguments})
        return
    members = unstructure(letter)
    output.table(("", ""), ((name, members[name]) for name in members if members[name] is not None))
    text = arguments if isinstance(arguments, str) else _pretty(arguments)
    output.message(text[:SHOWN_CHARS_MAX])
    if len(text) > SHOWN_CHARS_MAX or letter.args is not None:
        output.remark("--save FILE writes the whole body.")


def _arguments(letter: DeadLetter, body: bytes) -> Any:
    """Return the request's arguments: an object if they are one, else the raw text."""
    from teatree.contracts.errors import RequestError  # noqa: PLC0415
    from teatree.contracts.formats.codec import parse_json  # noqa: PLC0415

    raw = body if letter.args is None else letter.args.encode()
    try:
        return parse_json(raw, "body")
    except RequestError:
        return raw.decode(errors="replace")


def _pretty(arguments: Any) -> str:
    import json  # noqa: PLC0415

    return json.dumps(arguments, indent=2, ensure_ascii=False, default=str)
