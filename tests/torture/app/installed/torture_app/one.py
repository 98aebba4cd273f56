"""The app `torture_one`."""

from __future__ import annotations

from .functions import made

app = made("torture_one")
