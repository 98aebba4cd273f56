"""The pages that are made from the code are what the code gives."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_pages_are_what_the_code_gives() -> None:
    """docs/settings.md, docs/functions.md and docs/points.md: `make pages` would change none."""
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "pages.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 0


def test_the_pages_build_without_broken_links_and_load_nothing_from_elsewhere(tmp_path: Path) -> None:
    """`make docs` is strict; styles, scripts, fonts and pictures are files of the site."""
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=\"(https?:)?//", page.read_text("utf-8")), page
    for style in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", style.read_text("utf-8")), style
