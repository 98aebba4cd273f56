"""The dispatcher's registry of models and their status; all of it can be read again from the log and the chains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import define, field, frozen

from teatree.contracts.errors import RequestError
from teatree.contracts.formats.requests import LogPosition
from teatree.contracts.names import check_model
from teatree_dispatcher.placement import PlacementInput, PublishedState, Restart, log_mismatch


@frozen
class LogPlace:
    """The log's identity, and how far it was read."""

    created: str | None = None
    last: LogPosition | None = None
    """Its last message when it was read; None if that has not happened, or must be done again."""
    losses: int = 0
    """Lost connections so far: at each the server may have been restarted with a truncated log."""

    @property
    def last_seq(self) -> int:
        """Its last sequence."""
        return self.last.seq if self.last else 0


@define
class ModelStatus:
    """The status of one model."""

    model: str
    last_seq: int = 0
    last_drop_seq: int = 0
    published: PublishedState | None = None
    rejected_through: int = 0
    create_seq: int = 0
    restart: Restart = field(factory=Restart)
    offset_at_launch: int = 0
    was_served: bool = False
    """Whether a manager ran in the last round."""
    is_unfinished: bool = False
    """Whether its last manager ended before it had published all outcomes."""
    retries_at_once: bool = False
    """Whether its manager, if it stops for an operator, is started again at once: an operator has acted meanwhile."""
    log_truncated: bool = False
    """Whether the log has lost the request at the model's offset; its manager reports that and stops."""
    checked: tuple[int, int] | None = None
    """The offset, and the number of lost connections, for which that was checked."""
    trouble: str | None = None
    """The last error, so that it is reported once."""
    name_error: RequestError | None = field(default=None, init=False)
    """Why its name can never be a model's."""

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
        """The sequence up to which all requests outside its incarnations are answered."""
        return max(self.rejected_through, self.published.offset if self.published else 0)

    @property
    def read_through(self) -> int:
        """The last sequence of which something is known here."""
        return max(self.last_seq, self.last_drop_seq, self.rejected_through, self.create_seq)

    def is_to_check(self, log: LogPlace) -> bool:
        """Whether it must be checked that the log still holds its last request: once for each offset and connection.

        A model with requests beyond its offset has a manager that checks; if the log holds none of its requests, none
        was accepted under numbers that it has passed.
        """
        known = self.published
        if known is None or known.log_at is None or not 0 < self.last_seq <= known.offset:
            return False
        return self.log_truncated or self.checked != (known.offset, log.losses)

    def is_idle(self, log: LogPlace) -> bool:
        """Whether there is nothing to do for it, as far as is known."""
        return (
            self.published is not None
            and self.last_seq <= self.position
            and not self.was_served
            and not self.is_unfinished
            and not self.is_to_check(log)
            and (self.last_seq == 0 or not log_mismatch(self.published, log.created, log.last_seq))
        )


class ModelRegistry:
    """The status of every model."""

    def __init__(self) -> None:
        self._statuses: dict[str, ModelStatus] = {}
        self._answered: dict[str, int] = {}
        """The last request of names that can never be a model's, whose requests are answered: the log holds them until
        they are purged."""

    def __iter__(self) -> Iterator[ModelStatus]:
        return iter(list(self._statuses.values()))

    def begin(self) -> None:
        """Begin anew with another log; when managers may be started again is kept."""
        self._statuses = {status.model: ModelStatus(status.model, restart=status.restart) for status in self}
        self._answered = {}

    def status(self, model: str) -> ModelStatus:
        """Return a model's status; an unknown name gets a new one."""
        return self._statuses.setdefault(model, ModelStatus(model))

    def find(self, model: str) -> ModelStatus | None:
        """Return a model's status, if there is one."""
        return self._statuses.get(model)

    def forget(self, model: str) -> None:
        """Drop a status: that of a name that can never be a model's, once its requests are answered."""
        status = self._statuses.pop(model, None)
        if status is not None:
            self._answered[model] = status.last_seq

    def last_requests(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return the last request under every name in the log, valid or not, and the last `drop_model` of each."""
        known = {status.model: status.last_seq for status in self if status.last_seq}
        return self._answered | known, {s.model: s.last_drop_seq for s in self if s.last_drop_seq}

    def purged(self, first_seq: int) -> None:
        """Drop what is kept only for the purge, of names whose requests were before the log's first."""
        self._answered = {name: seq for name, seq in self._answered.items() if seq >= first_seq}

    def beyond(self, seq: int) -> set[str]:
        """Return the models of which the log was read beyond a sequence."""
        return {status.model for status in self if status.read_through > seq}

    def doubt(self, beyond: int = 0) -> None:
        """Reset the models of which the log was read beyond a sequence, since it may have been truncated there."""
        for status in self:
            if status.read_through > beyond:
                status.last_seq = status.last_drop_seq = status.rejected_through = status.create_seq = 0

    def learn(self, last: Mapping[str, int], drops: Mapping[str, int]) -> None:
        """Take in the last request of models in the log, and the last `drop_model` of each."""
        for model, seq in last.items():
            status = self.status(model)
            status.last_seq = max(status.last_seq, seq)
        for model, seq in drops.items():
            status = self.status(model)
            status.last_drop_seq = max(status.last_drop_seq, seq)
