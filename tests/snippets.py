"""The Python and shell snippets of README.md and docs/, and what runs them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from attrs import field, frozen

ROOT = Path(__file__).parents[1]
SHELL = frozenset({"sh", "bash", "shell", "console"})
RUN = SHELL | {"python"}
STACK = "this is the stack of all pages"
"""Note of the fence that starts the stack on which the others run."""
STOPPED = "while the stack is stopped"
_FENCE = re.compile(
    r"(?:^<!-- (?P<kind>not run|run): (?P<note>[^\n]*?) -->\n)?^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_READY_S = 60
_PYTHON = """
import ast, asyncio, inspect, sys
code = compile(sys.stdin.read(), "the snippet", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
result = eval(code, {"__name__": "__main__"})
if inspect.iscoroutine(result):
    asyncio.run(result)
"""
"""Runs a snippet from standard input, with `await` as a notebook has it."""


@frozen
class Snippet:
    """One fence of a page."""

    page: str
    line: int
    language: str
    text: str = field(repr=False)
    reason: str | None = None
    """Why it is not run."""
    note: str | None = None
    """How it is run, if not like the others."""


def pages() -> list[str]:
    """Return all pages that users read, by their paths in the repository."""
    return ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


def snippets(page: str) -> Iterator[Snippet]:
    """Yield a page's fences in their order, of all languages."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        kind, note = found["kind"], found["note"]
        yield Snippet(
            page,
            text.count("\n", 0, found.start("language")) + 1,
            found["language"].strip(),
            found["text"],
            reason=note if kind == "not run" else None,
            note=note if kind == "run" else None,
        )


class SnippetStack:
    """A folder with the stack that README.md starts; snippets run there, one after the other, as a reader runs them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / ".venv").symlink_to(sys.prefix)
        programs = folder / ".programs"
        programs.mkdir()
        for name, text in STAND_INS.items():
            (programs / name).write_text(f"#!{sys.executable}\n{text}")
            (programs / name).chmod(0o755)
        given = {name: value for name, value in os.environ.items() if not name.startswith("TEATREE_")}
        path = f"{programs}:{folder}/.venv/bin:{given['PATH']}"
        given |= installing_into(folder / ".packages")
        self._environ = {**given, "PATH": path, "TEATREE_CACHE_FOLDER": str(folder / ".cache"), "COLUMNS": "200"}
        self._up: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run the fence that starts the stack, and return when it is ready."""
        (fence,) = (s for page in pages() for s in snippets(page) if s.note == STACK)
        self._up = subprocess.Popen(
            ["bash", "-ec", fence.text],
            cwd=self._folder,
            env=self._environ,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + _READY_S
        ready = self._folder / "plan" / "teatree.env"
        while not (ready.is_file() and "TEATREE_NATS_URL" in ready.read_text()):
            assert self._up.poll() is None, fence
            assert time.monotonic() < deadline, fence
            time.sleep(0.05)

    def stop(self) -> None:
        """End the stack as Ctrl-C does."""
        if self._up is not None:
            os.killpg(self._up.pid, signal.SIGINT)
            self._up.wait(_READY_S)
            self._up = None

    def run_page(self, page: str) -> None:
        """Run a page's snippets; a failure names the line and shows the output. Its shells share their variables."""
        state = self._folder / f".state-{page.replace('/', '-')}"
        for snippet in snippets(page):
            if snippet.language not in RUN or snippet.reason is not None or snippet.note == STACK:
                continue
            if snippet.note == STOPPED:
                self.stop()
            self._run(snippet, state)
            if snippet.note == STOPPED:
                self.start()

    def _run(self, snippet: Snippet, state: Path) -> None:
        if snippet.language == "python":
            arguments, text = [sys.executable, "-c", _PYTHON], snippet.text
        else:
            before = f". {state}\n" if state.exists() else ""
            arguments, text = ["bash", "-e"], f"{before}set -a\n{snippet.text}\ndeclare -px > {state}\n"
        done = subprocess.run(
            arguments,
            input=text,
            cwd=self._folder,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, f"{snippet.page}:{snippet.line}\n{done.stdout}\n{done.stderr}"


def installing_into(folder: Path) -> dict[str, str]:
    """Return the environment in which pip installs into a folder, from no index, and Python finds what is there."""
    flags = dict.fromkeys(("UPGRADE", "NO_DEPS", "NO_INDEX", "QUIET"), "1")
    pip = {"TARGET": str(folder), "NO_BUILD_ISOLATION": "0", **flags}
    return {"PYTHONPATH": str(folder)} | {f"PIP_{name}": value for name, value in pip.items()}


STAND_INS = {
    "pip": """
import os, pathlib, runpy, shutil, sys
name = sys.argv[-1].rpartition("/")[2]
for old in pathlib.Path(os.environ["PIP_TARGET"]).glob(f"{name}-*.dist-info"):
    shutil.rmtree(old)  # in a target pip leaves another version's
runpy.run_module("pip", run_name="__main__")
""",
    "nats": """
import argparse, asyncio, nats
parser = argparse.ArgumentParser()
parser.add_argument("verb", choices=["pub"])
for name in ("server", "user", "password"):
    parser.add_argument(f"--{name}")
parser.add_argument("subject")
parser.add_argument("body")
a = parser.parse_args()
async def pub():
    nc = await nats.connect(a.server, user=a.user, password=a.password)
    await nc.publish(a.subject, a.body.encode())
    await nc.drain()
asyncio.run(pub())
""",
    "duckdb": """
import sys, duckdb
flag, path, sql = sys.argv[1:]
assert flag == "-readonly"
print(duckdb.connect(path, read_only=True).sql(sql))
""",
}
"""Programs that are no packages of ours to install: the same arguments, the same effect."""
