"""Subjects and stream names: the addresses of DESIGN.md, section 4, as pure functions of the prefix."""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import field, frozen

from teatree.contracts.errors import Code, OperatorError, RequestError
from teatree.contracts.formats.notices import Kind
from teatree.contracts.names import ANONYMOUS, check_function, check_group_id, check_model, check_sender

DEFAULT_PREFIX = "teatree"
PADDING = "_"
"""Stands for a model in the subject of a message that only takes up a sequence number."""
ADVANCED = "_advanced"
"""Stands for a model in the subjects of marks that `teatree log advance` leaves, one subject a model."""
NO_MODELS = frozenset({PADDING, ADVANCED})
"""Reserved names in the log: no model can have one, and no manager is started for it."""
_REQUEST = ("model", "function", "sender")
_QUERY = ("model", "function")
_LOG_TOKENS = 5
"""Of a request's subject in the log."""
_WATCH_TOKENS = 5
_KINDS = frozenset(str(kind) for kind in Kind)
"""Last tokens of notices about a request, whose id can be any."""
_PREFIX = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_TOKEN = re.compile(r"[^\s.*>\x00-\x1f\x7f]{1,1000}")


def _check_prefix(_: object, __: object, value: str) -> None:
    if not _PREFIX.fullmatch(value):
        raise OperatorError(
            Code.WRONG_CONFIGURATION,
            f"{value!r} is not a subject prefix.",
            where="TEATREE_PREFIX",
            hint="Use a lower-case letter, then up to 31 lower-case letters, digits, underscores or dashes.",
        )


# More than ten public methods: one for each form of subject.
@frozen
class Subjects:
    """Every subject of one installation.

    The log has one form of subject for requests, which ends with the sender. Clients may leave the sender out: the
    stream adds `_` (docs/decisions/0031).

    Names in published requests and reads are checked strictly. The others only have to be single tokens: what
    arrived under a name that breaks the rules must still be read and answered.
    """

    prefix: str = field(default=DEFAULT_PREFIX, validator=_check_prefix)

    @property
    def requests_stream(self) -> str:
        """Name of the stream that is the log."""
        return self._stream("REQUESTS")

    @property
    def notices_stream(self) -> str:
        """Name of the stream that keeps notices."""
        return self._stream("NOTICES")

    def _stream(self, name: str) -> str:
        return name if self.prefix == DEFAULT_PREFIX else f"{name}_{self.prefix}"

    @property
    def requests_all(self) -> str:
        """Filter for every request in the log."""
        return f"{self.prefix}.request.>"

    @property
    def requests_by_sender(self) -> str:
        """Where requests are published, with their sender."""
        return f"{self.prefix}.request.*.*.*"

    @property
    def requests_without_sender(self) -> str:
        """Where requests are published that name no sender."""
        return f"{self.prefix}.request.*.*"

    def request(self, model: str, function: str, sender: str = ANONYMOUS) -> str:
        """Return where a request is published; raises `bad_name`."""
        return f"{self.prefix}.request.{check_model(model)}.{check_function(function)}.{check_sender(sender)}"

    def request_filter(self, model: str) -> str:
        """Return the filter for every request to one model."""
        return f"{self.prefix}.request.{_token(model, 'model')}.>"

    def function_filter(self, model: str, function: str) -> str:
        """Return the filter for every request to one function of one model, or of all with `*`."""
        return f"{self.prefix}.request.{_token(model, 'model')}.{check_function(function)}.>"

    @property
    def padding(self) -> str:
        """Return where messages go that only take up a sequence number."""
        return f"{self.prefix}.request.{PADDING}.{PADDING}.{PADDING}"

    def advanced(self, model: str) -> str:
        """Return where the mark is published that resumes a model after the log was truncated or restored.

        Its last token is no sender's name: who may publish requests, under any name or without one, can leave no mark.
        """
        return f"{self.prefix}.request.{ADVANCED}.{check_model(model)}.{ADVANCED}"

    def parse_request(self, subject: str) -> tuple[str, str, str]:
        """Return model, function and sender of a request's subject, unchecked; raises `bad_name` if it is none.

        The sender of the shorter form, which a log holds whose stream was edited, is `_`.
        """
        tokens = subject.split(".")
        if len(tokens) == _LOG_TOKENS and tokens[0] == self.prefix and tokens[1] == "request":
            return tokens[2], tokens[3], tokens[4]
        is_short = subject.count(".") == len(_REQUEST)
        model, function, sender = self._parse("request", f"{subject}.{ANONYMOUS}" if is_short else subject, _REQUEST)
        return model, function, sender

    @property
    def wake_all(self) -> str:
        """Filter for every model's hints."""
        return f"{self.prefix}.wake.*"

    def wake(self, model: str) -> str:
        """Return where the hints that a model has a new request arrive: headers only."""
        return f"{self.prefix}.wake.{_token(model, 'model')}"

    @property
    def notices_all(self) -> str:
        """Filter for every notice."""
        return f"{self.prefix}.notify.>"

    @property
    def notices_kept(self) -> list[str]:
        """Filters for the notices that their stream keeps: all but those of live queries."""
        about_requests = [f"{self.prefix}.notify.*.*.{kind}" for kind in Kind if kind is not Kind.VERSION]
        return [
            *about_requests,
            f"{self.prefix}.notify.*.group.*.{Kind.DONE}",
            f"{self.prefix}.notify.*.{Kind.VERSION}",
        ]

    def notify(self, model: str, request_id: str, kind: str) -> str:
        """Return where one kind of notice on one request is published."""
        return f"{self.prefix}.notify.{_token(model, 'model')}.{_token(request_id, 'request id')}.{kind}"

    def notify_request(self, model: str, request_id: str) -> str:
        """Return the filter for every kind of notice on one request."""
        return self.notify(model, request_id, "*")

    def notify_version(self, model: str) -> str:
        """Return where new versions of a model are announced."""
        return f"{self.prefix}.notify.{_token(model, 'model')}.version"

    def notify_group(self, model: str, group: str) -> str:
        """Return where a bulk sender's outcomes are published, one notice per version."""
        return f"{self.prefix}.notify.{_token(model, 'model')}.group.{check_group_id(group)}.done"

    def notify_watch(self, model: str, query: str) -> str:
        """Return where what changed in a live query's answer is published."""
        return f"{self.prefix}.notify.{_token(model, 'model')}.watch.{query}"

    def is_of_watch(self, subject: str) -> bool:
        """Return whether a subject below `notify` is one of live queries."""
        tokens = subject.split(".")
        return len(tokens) == _WATCH_TOKENS and tokens[3] == "watch" and tokens[4] not in _KINDS

    def notify_model(self, model: str) -> str:
        """Return the filter for every notice of one model."""
        return f"{self.prefix}.notify.{_token(model, 'model')}.>"

    @property
    def queries_all(self) -> str:
        """Filter for every direct read."""
        return f"{self.prefix}.query.*.*"

    def query(self, model: str, function: str) -> str:
        """Return where a direct read is sent; raises `bad_name`."""
        return f"{self.prefix}.query.{check_model(model)}.{check_function(function)}"

    def query_model(self, model: str) -> str:
        """Return the filter for every direct read of one model."""
        return f"{self.prefix}.query.{_token(model, 'model')}.*"

    @property
    def dispatcher_probe(self) -> str:
        """Return a read that dispatchers answer and no manager does: no model has its name."""
        return f"{self.prefix}.query.{PADDING}.health"

    def parse_query(self, subject: str) -> tuple[str, str]:
        """Return model and function of a direct read's subject, unchecked; raises `bad_name` if it is none."""
        model, function = self._parse("query", subject, _QUERY)
        return model, function

    def _parse(self, family: str, subject: str, names: Sequence[str]) -> list[str]:
        prefix, found, *tokens = subject.split(".") if "." in subject else (subject, "")
        if len(tokens) != len(names) or prefix != self.prefix or found != family:
            raise RequestError(
                Code.BAD_NAME,
                f"{subject!r} is not a {family} subject.",
                where="subject",
                hint=f"Use {self.prefix}.{family}{''.join(f'.<{name}>' for name in names)}.",
            )
        return tokens


def is_token(value: str) -> bool:
    """Return whether a name can be part of a subject that we write.

    A server accepts more: longer names, and characters that are not printable.
    """
    return bool(_TOKEN.fullmatch(value)) and value.isprintable()


def _token(value: str, where: str) -> str:
    if is_token(value):
        return value
    raise RequestError(
        Code.BAD_NAME,
        f"{value[:80]!r} cannot be part of a subject.",
        where=where,
        hint="Leave out spaces, control characters, '.', '*' and '>'.",
    )
