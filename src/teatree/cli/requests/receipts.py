"""Printing the outcomes of requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from teatree.cli.exits import Exit
from teatree.cli.output import counted
from teatree.contracts.formats.codec import dump_json

if TYPE_CHECKING:
    from teatree.cli.output import Output
    from teatree.client.sending.receipt import Receipt, Summary

REFUSALS_SHOWN_MAX = 10


def print_receipt(output: Output, receipt: Receipt) -> None:
    """Print one request's receipt."""
    if output.json:
        output.line(receipt)
    elif receipt.is_done:
        result = "" if receipt.result is None else f" {_result(receipt.result)},"
        output.message(f"done  {receipt.function}:{result} version {receipt.version} of {receipt.model}", "green")
    else:
        output.message(
            f"accepted  {receipt.function} as {receipt.request_id}, sequence {receipt.seq} in the log", "green"
        )


def _result(result: Any) -> str:
    if isinstance(result, dict) and all(not isinstance(v, (dict, list)) for v in result.values()):
        return ", ".join(_member(name, value) for name, value in result.items())
    return dump_json(result).decode()


def _member(name: str, value: Any) -> str:
    return (
        counted(value, "row") if name == "rows" and isinstance(value, int) else f"{name}: {dump_json(value).decode()}"
    )


def print_summary(output: Output, summary: Summary, rows: int) -> Exit:
    """Print the outcomes of many requests; return the exit code."""
    if output.json:
        output.line(summary)
    elif not summary.waited:
        sent = counted(summary.sent, "request")
        output.message(f"accepted  {counted(rows, 'row')} in {sent} as group {summary.groups[0]}", "green")
    else:
        output.message(_summary_text(summary, rows), "green" if not summary.refused else "yellow")
        for refusal in summary.refusals[:REFUSALS_SHOWN_MAX]:
            error = refusal.error
            place = f" (at {error['where']})" if error.get("where") else ""
            output.remark(f"{refusal.status} {refusal.request_id}: {error.get('code')}: {error.get('message')}{place}")
        if len(summary.refusals) > REFUSALS_SHOWN_MAX:
            output.remark(f"… and {summary.refused - REFUSALS_SHOWN_MAX:,} more: --json lists them.")
    return _summary_exit(summary)


def _summary_text(summary: Summary, rows: int) -> str:
    done = summary.applied + summary.already
    again = f", {summary.already:,} of them applied before" if summary.already else ""
    where = "" if summary.version is None else f", version {summary.version} of {summary.model}"
    if not summary.refused:
        return f"done  {counted(done, 'request')} with {counted(rows, 'row')}{again}{where}"
    return f"refused  {summary.refused:,} of {counted(summary.sent, 'request')}; done: {done:,}{again}{where}"


def _summary_exit(summary: Summary) -> Exit:
    if not summary.refused:
        return Exit.OK
    rejected = any(refusal.status == "rejected" for refusal in summary.refusals)
    return Exit.REJECTED if rejected else Exit.UNAVAILABLE
