"""Printing: tables and progress for people, JSON for machines; results on stdout, everything else on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import attrs

from teatree.contracts.clock import SYSTEM_CLOCK
from teatree.contracts.formats.codec import dump_json, utc_text
from teatree.contracts.shown import visible, visible_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

Advance = Callable[..., None]
"""Called with the amount done and, if it changed, the total; and `description=`."""
REDRAW_S = 0.1
PIPE_COLUMNS = 500
"""Width of a table without a terminal, so that a row stays one line."""


class Output:
    """The two streams of one command."""

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self._out: Console | None = None
        self._err: Console | None = None

    @property
    def out(self) -> Console:
        """Standard output, for people."""
        if self._out is None:
            from rich.console import Console  # noqa: PLC0415 - 40 ms, not needed with --json

            self._out = Console(
                highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS
            )
        return self._out

    @property
    def err(self) -> Console:
        """Standard error: progress and remarks."""
        if self._err is None:
            from rich.console import Console  # noqa: PLC0415

            self._err = Console(stderr=True, highlight=False, markup=False, emoji=False)
        return self._err

    def line(self, value: Any) -> None:
        """Print one JSON value on one line, at once."""
        sys.stdout.buffer.write(visible_json(dump_json(_plain(value))) + b"\n")
        sys.stdout.buffer.flush()

    def raw(self, body: bytes) -> None:
        """Write bytes as they are."""
        sys.stdout.buffer.write(body)
        sys.stdout.buffer.flush()

    def message(self, text: str, style: str = "") -> None:
        """Print a result for people; nothing with `--json`."""
        if not self.json:
            self.out.print(visible(text, keep="\n"), style=style or None, soft_wrap=True)
            sys.stdout.flush()

    def remark(self, text: str) -> None:
        """Print a remark on standard error; nothing with `--json`."""
        if not self.json:
            self.err.print(visible(text, keep="\n"), style="dim", soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Sequence[str] = ()) -> None:
        """Print a table; the columns in `right` are numbers."""
        from rich.box import SIMPLE_HEAD  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
        for name in columns:
            table.add_column(Text(visible(name)), justify="right" if name in right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(visible(cell_text(cell)), style="dim" if cell is None else "") for cell in row))
        self.out.print(table)
        sys.stdout.flush()

    @contextmanager
    def progress(self, description: str, total: int | None = None, *, unit: str = "") -> Iterator[Advance]:
        """Show a progress bar on a terminal's standard error; gives the function that moves it, from any thread."""
        if self.json or not sys.stderr.isatty():
            yield lambda *_, **__: None
            return
        progress = _progress(self.err, unit)
        with progress:
            task = progress.add_task(description, total=total)
            drawn = 0.0

            def advance(done: int, total: int | None = None, **fields: Any) -> None:
                nonlocal drawn
                now = SYSTEM_CLOCK.monotonic()
                if now - drawn < REDRAW_S and done != total:
                    return
                drawn = now
                progress.update(task, completed=done, total=total, **fields)

            yield advance


def _progress(console: Console, unit: str) -> Progress:
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    amounts: dict[str, type[ProgressColumn]] = {"bytes": DownloadColumn, "%": TaskProgressColumn}
    amount = amounts.get(unit, MofNCompleteColumn)()
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        amount,
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


def cell_text(cell: Any) -> str:
    """Return a value as a table's cell shows it."""
    if cell is None:
        return "NULL"
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, datetime) and cell.tzinfo is not None:
        return cell.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return str(cell)


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: 1 row, 2,000 rows."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size_text(size_bytes: int) -> str:
    """Return a size for people: 1.2 MB."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def _plain(value: Any) -> Any:
    if attrs.has(type(value)):
        return attrs.asdict(value, value_serializer=lambda _, __, part: _scalar(part))
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value


def _scalar(part: Any) -> Any:
    if isinstance(part, datetime):
        return utc_text(part)
    return part if isinstance(part, (dict, list, tuple, str, int, float, bool, type(None))) else str(part)
