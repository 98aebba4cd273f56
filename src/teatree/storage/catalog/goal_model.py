"""A model's row in the catalog: the lease or a version creates it, whichever is written first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from teatree.contracts.errors import Code, OperatorError

if TYPE_CHECKING:
    import uuid

    from teatree.storage.catalog.postgres import PostgresSession


def ensure_row(session: PostgresSession, goal_model_id: uuid.UUID, name: str) -> None:
    """Make the model's row if there is none.

    An upsert alone is not enough: with two unique columns, concurrent inserts can violate the constraint of the other.
    """
    row = {"model": goal_model_id, "name": name}
    if session.execute(
        "INSERT INTO goal_model (goal_model_id, name) VALUES (%(model)s, %(name)s) ON CONFLICT DO NOTHING", row
    ):
        return
    if not session.rows("SELECT 1 AS found FROM goal_model WHERE goal_model_id = %(model)s", row):
        raise OperatorError(
            Code.WRONG_CONFIGURATION,
            f"The catalog has a model {name!r} of another installation.",
            where="goal_model.name",
            hint="Use a separate database for each installation (TEATREE_PREFIX).",
        )
