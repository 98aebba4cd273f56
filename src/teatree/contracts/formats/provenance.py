"""Provenance: the code that answered a request, and what it read of other models."""

from __future__ import annotations

from attrs import frozen


@frozen
class AppCode:
    """The code of an app, as it was when it answered a request."""

    name: str
    version: str
    code_hash: str
    """blake3 (hex) of the code: the same version of an app can be built from other code."""


@frozen
class VersionRead:
    """A version of another model that a request read."""

    model: str
    version: int
