"""Every Python and shell snippet of README.md and the docs works as printed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from snippets import RUN, SHELL, SnippetStack, pages, snippets

QUICK = ("README.md", "docs/wire.md")
"""What the default run has time for."""


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[SnippetStack]:
    """Return the stack that README.md starts."""
    stack = SnippetStack(tmp_path)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


def test_every_snippet_is_run_or_has_a_reason() -> None:
    """A fence names its language; one of a language that runs is not left out without a reason."""
    for page in pages():
        for snippet in snippets(page):
            assert snippet.language in RUN | {"text", "json", "sql"}, snippet
            assert snippet.reason is None or len(snippet.reason) > 15, snippet
        fences = (Path(__file__).parents[2] / page).read_text(encoding="utf-8").count("\n```")
        assert fences == 2 * len(list(snippets(page))), page
    assert SHELL < RUN


def test_the_snippets_of_the_first_pages(stack: SnippetStack) -> None:
    """README.md and the wire protocol's client."""
    for page in QUICK:
        stack.run_page(page)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_other_snippets(stack: SnippetStack, subtests: pytest.Subtests) -> None:
    """All other pages, on one stack with README's model; a page that fails does not hide the next."""
    stack.run_page("README.md")
    for page in pages():
        if page not in QUICK:
            with subtests.test(page):
                stack.run_page(page)
