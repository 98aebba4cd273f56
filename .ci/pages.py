"""Write the pages of docs/ that are made from the code: settings, functions, points; `--check` compares them only.

A setting's default, unit and meaning come from its class, a function's arguments from the calls that take them and from
its docstring. What the code does not hold (a point's meaning) is in points.toml: each needs one, and none may be left
over.
"""

from __future__ import annotations

import sys
from pathlib import Path

from functions_page import functions_page
from points_page import points_page
from settings_page import settings_page

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = {"settings.md": settings_page, "functions.md": functions_page, "points.md": points_page}


def main() -> int:
    """Write or compare all pages; return 1 if one differs."""
    is_check = sys.argv[1:] == ["--check"]
    differing = 0
    for name, page in PAGES.items():
        path, text = DOCS / name, page()
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        differing += 1
        if is_check:
            print(f"docs/{name} is not what the code gives: run `make pages`.", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
            print(f"docs/{name} was written.")
    return 1 if is_check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
