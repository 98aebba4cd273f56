"""Printing what became of requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from teatree.cli.exits import Exit
from teatree.contracts.codec import dump_json

if TYPE_CHECKING:
    from teatree.cli.output import Output
    from teatree.client.receipt import Receipt, Summary

REFUSALS_SHOWN_MAX = 10


def print_receipt(output: Output, receipt: Receipt) -> None:
    """Print one request's receipt."""
    if output.json:
        output.line(receipt)
    elif receipt.is_done:
        result = "" if receipt.result is None else f"  {_result(receipt.result)}"
        output.say(f"done  {receipt.function} is in version {receipt.version} of {receipt.model}{result}", "green")
    else:
        output.say(f"accepted  {receipt.function} as {receipt.request_id}, number {receipt.seq} in the log", "green")


def _result(result: Any) -> str:
    if isinstance(result, dict) and all(not isinstance(v, (dict, list)) for v in result.values()):
        return ", ".join(f"{name}: {value}" for name, value in result.items())
    return dump_json(result).decode()


def print_summary(output: Output, summary: Summary, rows: int) -> Exit:
    """Print what became of many requests; return the exit code."""
    if output.json:
        output.line(summary)
    elif not summary.waited:
        output.say(f"accepted  {rows:,} rows in {summary.sent:,} requests as group {summary.groups[0]}", "green")
    else:
        again = f", {summary.already:,} of them already applied before" if summary.already else ""
        done = summary.applied + summary.already
        text = f"done  {done:,} of {summary.sent:,} requests ({rows:,} rows{again}) are in version {summary.version}"
        output.say(f"{text} of {summary.model}", "green" if not summary.refused else "yellow")
        for refusal in summary.refusals[:REFUSALS_SHOWN_MAX]:
            error = refusal.error
            place = f" (at {error['where']})" if error.get("where") else ""
            output.remark(f"{refusal.status} {refusal.request_id}: {error.get('code')}: {error.get('message')}{place}")
        if len(summary.refusals) > REFUSALS_SHOWN_MAX:
            output.remark(f"… and {summary.refused - REFUSALS_SHOWN_MAX:,} more: --json lists them.")
    return _summary_exit(summary)


def _summary_exit(summary: Summary) -> Exit:
    if not summary.refused:
        return Exit.OK
    rejected = any(refusal.status == "rejected" for refusal in summary.refusals)
    return Exit.REJECTED if rejected else Exit.UNAVAILABLE
