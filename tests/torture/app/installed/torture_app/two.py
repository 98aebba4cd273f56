"""The app `torture_two`."""

from __future__ import annotations

from .functions import made

app = made("torture_two")
