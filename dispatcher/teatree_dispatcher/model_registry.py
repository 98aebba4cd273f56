"""What the dispatcher knows about each model; all of it can be forgotten and found again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import define, field, frozen

from teatree.contracts.errors import RequestError
from teatree.contracts.names import check_model
from teatree_dispatcher.placement import PlacementInput, PublishedState, Restart, log_mismatch


@frozen
class LogPlace:
    """Which log it is, and how far it goes."""

    created: str | None = None
    last_seq: int = 0
    losses: int = 0
    """Connections that were lost before: each may have been the server's end, and the log's."""


@define
class ModelStatus:
    """One model."""

    model: str
    last_seq: int = 0
    last_drop_seq: int = 0
    published: PublishedState | None = None
    rejected_through: int = 0
    create_seq: int = 0
    restart: Restart = field(factory=Restart)
    offset_at_launch: int = 0
    was_served: bool = False
    """Whether a manager lived when we looked last."""
    is_unfinished: bool = False
    """Whether its last manager ended before it had said all outcomes."""
    retries_at_once: bool = False
    """Whether its manager, should it stop for an operator, is tried again at once: the operator has done something."""
    log_truncated: bool = False
    """Whether the log does not hold any more what the model counts from; its manager says so and stops."""
    checked: tuple[int, int] | None = None
    """For which offset, and after how many lost connections, that was looked at."""
    trouble: str | None = None
    """What went wrong with it last, so that it is said once."""
    name_error: RequestError | None = field(default=None, init=False)
    """Why it can never be a model."""

    def __attrs_post_init__(self) -> None:
        try:
            check_model(self.model)
        except RequestError as e:
            self.name_error = e

    def placement_input(self, log: LogPlace, *, is_served: bool) -> PlacementInput:
        """Return what placement decides on."""
        return PlacementInput(
            last_seq=self.last_seq,
            last_drop_seq=self.last_drop_seq,
            published=self.published,
            rejected_through=self.rejected_through,
            create_seq=self.create_seq,
            is_served=is_served,
            log_mismatch=self.log_truncated or log_mismatch(self.published, log.created, log.last_seq),
            is_unfinished=self.is_unfinished,
        )

    @property
    def position(self) -> int:
        """Up to where all requests outside its lives are answered."""
        return max(self.rejected_through, self.published.offset if self.published else 0)

    def is_to_check(self, log: LogPlace) -> bool:
        """Whether somebody has to ask if the log still holds its last request: once for each offset and connection.

        A model with requests beyond its offset has a manager that asks; if the log holds none of its requests, none was
        accepted under numbers that it has passed.
        """
        known = self.published
        if known is None or known.log_at is None or not 0 < self.last_seq <= known.offset:
            return False
        return self.log_truncated or self.checked != (known.offset, log.losses)

    def is_idle(self, log: LogPlace) -> bool:
        """Whether a look would find nothing to do, as far as we know."""
        return (
            self.published is not None
            and self.last_seq <= self.position
            and not self.was_served
            and not self.is_unfinished
            and not self.is_to_check(log)
            and (self.last_seq == 0 or not log_mismatch(self.published, log.created, log.last_seq))
        )


class ModelRegistry:
    """All records, by model."""

    def __init__(self) -> None:
        self._records: dict[str, ModelStatus] = {}

    def __iter__(self) -> Iterator[ModelStatus]:
        return iter(list(self._records.values()))

    def status(self, model: str) -> ModelStatus:
        """Return a model's record; an unknown name gets a new one."""
        return self._records.setdefault(model, ModelStatus(model))

    def find(self, model: str) -> ModelStatus | None:
        """Return a model's record, if there is one."""
        return self._records.get(model)

    def forget(self, model: str) -> None:
        """Drop a record: a name that can never be a model need not be remembered once its requests are answered."""
        self._records.pop(model, None)

    def doubt(self) -> None:
        """Take nothing for known that the log told: it may have lost its end."""
        for status in self:
            status.last_seq = status.last_drop_seq = status.rejected_through = status.create_seq = 0

    def learn(self, last: Mapping[str, int], drops: Mapping[str, int]) -> None:
        """Take in how far models go in the log, and where each was last asked to end."""
        for model, seq in last.items():
            status = self.status(model)
            status.last_seq = max(status.last_seq, seq)
        for model, seq in drops.items():
            status = self.status(model)
            status.last_drop_seq = max(status.last_drop_seq, seq)
