"""Promises of the error tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from teatree.contracts.errors import Code

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


@pytest.mark.parametrize("code", list(Code))
def test_every_code_is_explained(code: Code) -> None:
    """Whoever gets a code finds it in docs/errors.md."""
    assert f"`{code}`" in PAGE.read_text()
