"""The page of the probe's points: names and attributes from the code that reports them, meanings from points.toml."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).resolve().parent.parent
MEANINGS = Path(__file__).with_name("points.toml")
KINDS = {"point": "instant", "step": "step"}
"""By method of `Probe`: what it reports."""
HEAD = """# Points of the probe

<!-- Made from the code and .ci/points.toml by `make pages`; a test compares the two. -->

Each step that a request, a read or a version passes is a point in the code. A listener that is attached receives the
points of its process: the tests crash, stop and delay processes there (`TEATREE_FAILPOINTS`), and spans and metrics can
be made from them. Without a listener a point is one call of an empty function.

```python
from teatree import connect
from teatree.contracts.probe import Listener, Point


class Printer(Listener):
    def reached(self, point: Point) -> None:
        print(point.name)

    def begun(self, point: Point) -> None:
        print(point.name, "begins", "within", point.parent.name if point.parent else "nothing")

    def ended(self, point: Point, error: BaseException | None) -> None:
        print(point.name, "ends", error or "")


async with connect(data="plan", listeners=[Printer()]) as session:
    await session.model("sales").query("SELECT 1")
```

An instant has one place, which has its name; a step has two, `<name>.begin` and `<name>.end`, and reaches its end only
if it succeeds. Attributes are passed as the code has them, such as a request with its id and its `traceparent`; the
points of a manager have `model` too.
"""


@frozen
class PointInCode:
    """One call that reports a point."""

    name: str
    kind: str
    attributes: frozenset[str]


def points() -> list[PointInCode]:
    """Return all points of the code, by name; attributes are those of any call with that name."""
    found: dict[str, PointInCode] = {}
    for point in _calls():
        known = found.get(point.name, point)
        found[point.name] = PointInCode(point.name, point.kind, known.attributes | point.attributes)
    return [found[name] for name in sorted(found)]


def _calls() -> Iterator[PointInCode]:
    for folder in ("src", "manager", "dispatcher"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                match node:
                    case ast.Call(func=ast.Attribute(attr="point" | "step" as method), args=[ast.Constant(str(name))]):
                        named = frozenset(keyword.arg for keyword in node.keywords if keyword.arg)
                        yield PointInCode(name, KINDS[method], named)


def points_page() -> str:
    """Return the page; raises KeyError for a point without a meaning, ValueError for a meaning without a point."""
    meanings: dict[str, str] = tomllib.loads(MEANINGS.read_text(encoding="utf-8"))["points"]
    rows = []
    for point in points():
        attributes = ", ".join(f"`{name}`" for name in sorted(point.attributes))
        rows.append(f"| `{point.name}` | {point.kind} | {attributes} | {meanings.pop(point.name)} |")
    if meanings:
        raise ValueError(f"points.toml has points that the code lacks: {', '.join(meanings)}")
    return "\n".join([HEAD, "| point | kind | attributes | what |", "| --- | --- | --- | --- |", *rows, ""])
