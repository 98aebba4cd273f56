"""Set up `.venv` from nothing but Python 3.11 or newer with pip and venv; do nothing if it is up to date.

The requirements are pinned with hashes (`requirements.txt`); where they come from is pip's own configuration.
Run it with any Python: it uses the standard library only.
"""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STATE = ROOT / ".make"
STAMP = VENV / "installed"
EXAMPLE = "docs/examples/sales_goals"
"""An app that `teatree demo` runs, installed as the packages of users are."""
INPUTS = ("requirements.txt", "pyproject.toml", ".ci/install.py", f"{EXAMPLE}/pyproject.toml")
PYTHON_MIN = (3, 11)


def main() -> int:
    """Install what is missing; two at the same time take turns."""
    if sys.version_info < PYTHON_MIN:
        return _fail(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]} ({sys.executable}).")
    STATE.mkdir(exist_ok=True)
    with (STATE / "install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = _fingerprint()
        if STAMP.is_file() and STAMP.read_text() == wanted and _works():
            return 0
        return _install(wanted)


def _install(wanted: str) -> int:
    if not _works():
        print("Creating .venv", flush=True)
        try:
            venv.create(VENV, clear=True, with_pip=True)
        except (subprocess.CalledProcessError, ImportError):
            return _fail("venv could not install pip: install this Python's venv package (python3-venv on Debian).")
    STAMP.unlink(missing_ok=True)
    print("Installing the pinned requirements (once)", flush=True)
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    for arguments in (
        ["--require-hashes", "--no-deps", "--only-binary=:all:", "--requirement", "requirements.txt"],
        ["--no-deps", "--no-build-isolation", "--no-index", "--editable", ".", "--editable", EXAMPLE],
    ):
        if subprocess.run([*pip, *arguments], cwd=ROOT, check=False).returncode != 0:
            return _fail(f"`pip install {' '.join(arguments)}` failed: see above. Once it is mended, run make again.")
    STAMP.write_text(wanted)
    return 0


def _works() -> bool:
    """Return whether the environment's Python runs, has pip, and is where it was made: one that was moved is not."""
    probe = f"import sys, pip; sys.exit(sys.version_info < {PYTHON_MIN} or sys.prefix != sys.argv[1])"
    try:
        return subprocess.run([PYTHON, "-c", probe, str(VENV)], check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def _fingerprint() -> str:
    digest = hashlib.sha256(str(ROOT).encode())
    for name in INPUTS:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
