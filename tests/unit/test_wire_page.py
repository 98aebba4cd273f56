"""docs/wire.md names what the code has: subjects, headers, kinds, members and limits."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from teatree.contracts.formats.notices import Kind, WireNotice
from teatree.contracts.formats.requests import (
    ARGS_HEADER_BYTES_MAX,
    CONTENT_ARROW,
    CONTENT_JSON,
    FUNCTIONS_FUNCTION,
    HEADER_PAGE,
    HEADER_PAGES,
    HEADER_VERSION,
    HEADERS,
    HEALTH_FUNCTION,
)
from teatree.contracts.read_settings import ReadSettings
from teatree.contracts.settings import DispatcherSettings, LimitSettings
from teatree.messaging.asked_reads import REPEAT_MS_MAX, REPEAT_MS_MIN
from teatree.messaging.batches import BATCH_MESSAGES_MAX
from teatree.messaging.service import HEADER_ERROR, HEADER_ERROR_CODE, service_name
from teatree.messaging.subjects import Subjects
from teatree_manager.read_workers.worker import PAGES_MAX
from teatree_manager.reads import WAIT_MS_DEFAULT, WAIT_MS_MAX

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "wire.md").read_text(encoding="utf-8")
SUBJECTS = Subjects()
NAMED = (
    SUBJECTS.request("m", "f", "s"),
    SUBJECTS.request("m", "f").removesuffix("._"),
    SUBJECTS.notify("m", "r", "k"),
    SUBJECTS.notify_group("m", "g"),
    SUBJECTS.notify_version("m"),
    SUBJECTS.query("m", "f"),
    SUBJECTS.wake("m"),
    SUBJECTS.query("m", "cancel"),
    SUBJECTS.query("m", HEALTH_FUNCTION),
    SUBJECTS.query("m", FUNCTIONS_FUNCTION),
)
PLACEHOLDERS = {"m": "<model>", "f": "<function>", "s": "<sender>", "r": "<request id>", "g": "<group>", "k": "<kind>"}


@pytest.mark.parametrize("subject", NAMED)
def test_subjects(subject: str) -> None:
    """Each family of subjects is written as the code makes it."""
    written = ".".join(PLACEHOLDERS.get(token, token) for token in subject.split("."))
    assert f"`{written}`" in PAGE


def test_names_of_streams_and_services() -> None:
    """Also under another prefix."""
    other = Subjects("p")
    for name in (SUBJECTS.requests_stream, SUBJECTS.notices_stream, other.requests_stream, other.notices_stream):
        assert f"`{name}`" in PAGE
    assert f"`{service_name('teatree', '<model>')}`" in PAGE


def test_headers() -> None:
    """All headers of a request, a page, a reply and an error."""
    others = (HEADER_PAGE, HEADER_PAGES, HEADER_VERSION, HEADER_ERROR, HEADER_ERROR_CODE, CONTENT_ARROW, CONTENT_JSON)
    for name in (*HEADERS, *others):
        assert f"`{name}`" in PAGE, name


def test_kinds_and_members() -> None:
    """Every kind of notice, and every member that one can have."""
    for kind in Kind:
        assert f"`{kind.value}`" in PAGE
    for member in (a.name for a in attrs.fields(WireNotice)):
        assert f"`{member}`" in PAGE, member


@pytest.mark.parametrize(
    "number",
    [
        ARGS_HEADER_BYTES_MAX,
        BATCH_MESSAGES_MAX,
        WAIT_MS_DEFAULT,
        WAIT_MS_MAX,
        PAGES_MAX,
        REPEAT_MS_MIN,
        REPEAT_MS_MAX,
        LimitSettings().request_bytes_max,
        LimitSettings().pages_inline_max,
        LimitSettings().remember_days,
        DispatcherSettings().notices_max,
    ],
)
def test_limits(number: int) -> None:
    """The numbers are those of the code."""
    assert f"{number:,}" in PAGE


def test_defaults_in_the_page_on_operation() -> None:
    """Numbers that docs/operations.md repeats are the defaults."""
    page = (DOCS / "operations.md").read_text(encoding="utf-8")
    reads, dispatcher = ReadSettings(), DispatcherSettings()
    assert f"`TEATREE_READS_WORKERS_MAX` ({reads.workers_max})" in page
    assert f"`TEATREE_READS_WAITING_MAX` ({reads.waiting_max})" in page
    assert f"`TEATREE_DISPATCHER_MANAGERS_MAX` ({dispatcher.managers_max})" in page
    assert f"`TEATREE_DISPATCHER_REQUEST_LOG_DAYS` ({dispatcher.request_log_days:.0f};" in page
