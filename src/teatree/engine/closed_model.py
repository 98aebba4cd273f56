"""The states of a model whose data its writer does not use."""

from __future__ import annotations

from attrs import frozen

from teatree.contracts.formats.manifest import Manifest


@frozen
class NotTakenOver:
    """A model that its writer has not fenced yet."""


@frozen
class ClosedModel:
    """A model with its writer's fence, whose data are not open: not yet, or because they were put aside."""

    manifest: Manifest
    """The newest manifest that the writer knows to be its own."""
