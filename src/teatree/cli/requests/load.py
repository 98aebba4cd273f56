"""`teatree load`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen

from teatree.cli.exits import usage
from teatree.cli.options import SENDER_DEFAULT, ModelName, SenderCommon
from teatree.cli.output import Output, counted
from teatree.cli.requests.csv_flags import NO_FLAGS, CsvFlags
from teatree.cli.requests.receipts import print_receipt
from teatree.cli.requests.request_progress import progress_shower
from teatree.cli.running import with_session
from teatree.contracts.shown import visible

if TYPE_CHECKING:
    from teatree.client.file_load import LoadedFile
    from teatree.client.model import Model
    from teatree.client.sending.receipt import Receipt
    from teatree.client.session import Session

TIMEOUT_MS = 600_000
Mode = Literal["append", "replace", "create"]


def load(
    model: ModelName,
    table: str,
    file: str,
    /,
    *,
    mode: Mode = "append",
    id: str | None = None,
    timeout_ms: int = TIMEOUT_MS,
    csv: CsvFlags = NO_FLAGS,
    common: SenderCommon = SENDER_DEFAULT,
) -> None:
    """Load a file into a table: CSV, Parquet or Arrow.

    A file of this machine is read and checked here as a whole, then sent in as many requests as needed; readers may see
    a part of its rows until all are applied. An address (s3://, file://), or a path below TEATREE_LOAD_ROOTS or not on
    this machine, is read by the manager in one request, from a location that the operator of the stack allowed.

    Example: teatree load sales sales ./january.csv --delimiter ";" --decimal ,

    Example: teatree load sales sales s3://bucket/2026/sales.parquet --mode replace

    Parameters
    ----------
    model
        The model's name.
    table
        The table to add the rows to.
    file
        A file of this machine, or the address of one that the manager can read.
    mode
        Add the rows, replace all rows, or create the table with the file's columns.
    id
        Request id: the same id again has no second effect. A file that is sent has ID-1, ID-2, and so on.
    timeout_ms
        How long to wait for the outcome, or for the next of many; it is still applied after that.
    """
    output = Output(json=common.json)

    async def work(session: Session) -> None:
        loading = _Load(output, session.model(model), _Loading(table, mode, id, timeout_ms, csv.given))
        if _is_sent(file, session.settings.load_roots):
            await loading.send(Path(file))
        else:
            await loading.load_by_manager(file)

    with_session(common, work)


def _is_sent(file: str, roots: tuple[str, ...]) -> bool:
    """Return whether a file is read here, rather than by the manager; raises `usage` for one that does not exist."""
    if "://" in file:
        return False
    path = Path(file)
    if not path.exists():
        if path.is_absolute():
            return False
        raise usage(f"There is no file {file!r} here.", "Name a file of the manager by its address or absolute path.")
    if not path.is_file():
        raise usage(f"{file!r} is not a file.")
    folders = [Path(root.removeprefix("file://")).resolve() for root in roots if not root.startswith("s3://")]
    return not (path.is_absolute() and any(path.resolve().is_relative_to(folder) for folder in folders))


@frozen
class _Loading:
    """What to load, and how."""

    table: str
    mode: Mode
    id: str | None
    timeout_ms: int
    csv: dict[str, Any]


class _Load:
    """One load."""

    def __init__(self, output: Output, model: Model, given: _Loading) -> None:
        self._output = output
        self._model = model
        self._given = given

    async def load_by_manager(self, uri: str) -> None:
        """Have the manager read a file."""
        with self._output.progress(f"loading into {self._given.table}", unit="%") as advance:
            receipt: Receipt = await self._model.load(
                self._given.table,
                uri,
                mode=self._given.mode,
                csv=self._given.csv,
                request_id=self._given.id,
                timeout_ms=self._given.timeout_ms,
                on_notice=progress_shower(advance),
            )
        print_receipt(self._output, receipt)

    async def send(self, path: Path) -> None:
        """Read a file here and send it."""
        accepted = 0
        try:
            with self._output.progress(f"reading {path.name}") as advance:

                def progress(what: str, rows: int, total: int | None) -> None:
                    nonlocal accepted
                    accepted = max(accepted, 0 if what == "checking" else rows)
                    advance(rows, total, description=visible(f"{what} {path.name}"))

                loaded = await self._model.load_file(
                    self._given.table,
                    path,
                    mode=self._given.mode,
                    csv=self._given.csv,
                    request_id=self._given.id,
                    timeout_ms=self._given.timeout_ms,
                    progress=progress,
                )
        except asyncio.CancelledError:
            self._output.remark(f"Interrupted: at least {accepted:,} rows were accepted and will be applied.")
            raise
        self._print(path, loaded)

    def _print(self, path: Path, loaded: LoadedFile) -> None:
        summary = loaded.summary
        if self._output.json:
            self._output.line(
                {
                    "model": summary.model,
                    "table": self._given.table,
                    "rows": loaded.rows,
                    "requests": summary.sent,
                    "version": summary.version,
                    "groups": list(summary.groups),
                }
            )
        else:
            place = f"version {summary.version} of {summary.model}" if summary.version else summary.model
            self._output.message(
                f"done  {counted(loaded.rows, 'row')} of {path} {'is' if loaded.rows == 1 else 'are'} in {place}",
                "green",
            )
