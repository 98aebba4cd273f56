"""A model by its name, and what it is reached through."""

from __future__ import annotations

from teatree.client.connection import Connection
from teatree.contracts.names import check_model


class NamedModel:
    """One model of an installation; it need not exist yet."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.connection = connection
        """The session that it is a model of."""
        self.name = check_model(name)
