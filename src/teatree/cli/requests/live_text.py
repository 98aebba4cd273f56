"""What changed in a watched query, printed: as lines for people, as a JSON document a line for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from teatree.cli.output import Output, counted
from teatree.cli.requests.query_reply import ROWS_SHOWN_MAX, print_reply
from teatree.contracts.formats.codec import dump_json
from teatree.contracts.shown import visible

if TYPE_CHECKING:
    from teatree.client.live.watching import AnswerChange

_SIGNS = (("added", "+", "green"), ("changed", "~", "yellow"), ("removed", "-", "red"))


def print_change(output: Output, change: AnswerChange) -> None:
    """Print a change; a whole answer as `teatree query` prints it."""
    parts = {name: getattr(change, name).to_json_rows(as_written=True) for name, _, _ in _SIGNS}
    if output.json:
        found: dict[str, Any] = {"version": change.version, "from": change.from_version, "key": list(change.key)}
        output.line({**found, **parts})
        return
    if change.is_whole:
        print_reply(output, change.added, change.version, "table")
        return
    for name, sign, style in _SIGNS:
        for row in parts[name][:ROWS_SHOWN_MAX]:
            output.out.print(f"{sign} {visible(dump_json(row).decode())}", style=style)
    shown = max(map(len, parts.values()))
    more = f", the first {ROWS_SHOWN_MAX} of each kind shown" if shown > ROWS_SHOWN_MAX else ""
    total = counted(sum(map(len, parts.values())), "row")
    output.remark(f"{total}, from version {change.from_version} to {change.version}{more}")
