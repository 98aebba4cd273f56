"""Keeping a request that is to be set aside, before its outcome is committed."""

from __future__ import annotations

from teatree.contracts.formats.requests import Request
from teatree.engine.model_context import ModelContext
from teatree.storage.dead_letters import write_dead_letter


def keep_dead_letter(context: ModelContext, request: Request, tries: int) -> None:
    """Keep a request for inspection; may be called again after a `RetryError`."""
    with context.probe.step("manager.set_aside", request=request):
        write_dead_letter(context.chain, request, tries)
