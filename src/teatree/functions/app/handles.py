"""Handles of apps: what user code reads and changes its model through."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Read(ABC):  # noqa: B024  its methods follow
    """Reads a model."""


class Write(Read):
    """Changes a model, in the transaction of its request."""

    @abstractmethod
    def read_only(self) -> Read:
        """Return a handle on the same transaction that cannot write."""
