"""The simple model: what the requests of a log must have done, in plain dicts and lists.

It shares no code with what it checks: it implements tables, types, keys, ids and incarnations a second time, for the
requests that `workload` sends. `Oracle.apply` takes accepted requests in order and returns how each must end.
"""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any, Protocol

from attrs import Factory, define, evolve, frozen

from torture.app.expected import APP_FUNCTIONS, APP_QUERIES, call
from torture.expected_table import ExpectedTable, RefusedError, Row

BAD = "bad--"
"""Prefix of an id `bad--<code>--…`: the request must be refused with this code, in any state."""
HEAVY = "heavy--"
"""Prefix of an id `heavy--<code>--…`: the request is beyond a limit, or a function of the app raises: it must fail with
this code."""
UNUSABLE_ID, REPEATED_HEADER, BAD_SENDER = "bad_request_id", "bad_header", "bad_name"
"""Stand for the function of a request whose id cannot be used, or which has its id's header twice."""
COUNTER_SQL = "UPDATE counter SET n = n + ? WHERE id = ?"
DELETE_SQL = "DELETE FROM items WHERE qty < ? AND id % 7 = ?"
PAIR_SQL = "INSERT INTO pairs VALUES (?, ?), (?, ?)"
COUNTER_QUERY = "SELECT id, n FROM counter ORDER BY id"
PAIRS_QUERY = "SELECT count(*) AS c, CAST(coalesce(sum(v), 0) AS BIGINT) AS s FROM pairs"
FAILED_CODES = frozenset({"set_aside", "timed_out", "over_limit", "source_unavailable"})
"""Codes with which a valid request may be `failed`."""
NO_APP = "bad_app"
MAY_LACK = APP_FUNCTIONS | {"frobnicate"}
"""Functions whose calls fail with this code while the app cannot be imported: its own, and names that it may have."""
READ_CODES = frozenset({"unknown_version", "bad_source"})
"""Codes with which a request that reads another model may be rejected."""
WITHOUT_EFFECT = APP_QUERIES | {"query", "archive", "use_app"}


class Past(Protocol):
    """What was observed, where the state alone does not determine how a request ends."""

    def offset_of(self, version: int) -> int:
        """Return the offset of a version of this model."""

    def refusal_of(self, seq: int) -> tuple[str, str] | None:
        """Return kind and code with which a request was refused; None if it was not."""

    def tables_of(self, model: str, version: int) -> dict[str, ExpectedTable] | None:
        """Return the tables of the replay at a version of any model; None if there was no model."""

    def may_refuse(self, model: str, version: int, code: str) -> bool:
        """Return whether a request for a version may be rejected with a code: it was cleaned up or damaged."""

    def version_met(self, seq: int) -> str:
        """Return the version of the app that a request met."""

    def may_lack_app(self, seq: int) -> bool:
        """Return whether the app's import may have failed for a request."""


@frozen
class Accepted:
    """One message of the log, as JetStream returns it."""

    seq: int
    model: str
    function: str
    request_id: str
    body: bytes
    group: str | None = None
    at_s: float = 0.0
    """When JetStream stored it: a log that lost its end uses numbers again."""
    sender: str = "_"

    @property
    def identity(self) -> tuple[str, bytes]:
        """What a resend has in common with its request."""
        return self.function, self.body


@frozen
class Verdict:
    """How a request must have ended: `answers` is the sequence of the request whose outcome is its own."""

    seq: int
    request_id: str
    kind: str
    code: str | None = None
    count: int | None = None
    """Rows that `result` must name."""
    answer: list[Row] | None = None
    """Rows of a query's only page."""
    result: Row | None = None
    """What a function of the app must have returned."""
    app: str | None = None
    """Name and version of the app that must have answered it; None for a built-in function."""
    role: str = "first"
    """`first`, `again`, `reused`, or `outside` a model's incarnations."""
    answers: int = 0
    group: str | None = None
    is_outside: bool = False
    """Whether the first outcome of its id is outside the model's incarnations: no version holds it."""


@define
class Oracle:
    """The state of one model after some of its requests."""

    past: Past
    tables: dict[str, ExpectedTable] = Factory(dict)
    alive: bool = False
    firsts: dict[str, tuple[Accepted, Verdict]] = Factory(dict)
    last_effect_seq: int = 0
    app: str | None = None
    """The name of its app."""

    def apply(self, request: Accepted) -> Verdict:
        """Apply a request and return how it must have ended."""
        first = self.firsts.get(request.request_id)
        if (
            not self.alive
            and request.function != "create_model"
            and (first is None or first[0].identity != request.identity)
        ):
            outside = self._verdict(request, "rejected", code="unknown_model", role="outside")
            self.firsts.setdefault(request.request_id, (request, outside))
            return outside
        if first is not None:
            if first[0].identity != request.identity:
                return self._verdict(request, "rejected", code="request_id_reused", role="reused")
            return evolve(
                first[1],
                seq=request.seq,
                role="again",
                group=request.group,
                is_outside=first[1].role == "outside",
            )
        verdict = self._first(request)
        self.firsts[request.request_id] = (request, verdict)
        return verdict

    def _first(self, request: Accepted) -> Verdict:
        kind, code = self.past.refusal_of(request.seq) or ("", "")
        if code == NO_APP and request.function in MAY_LACK and self.past.may_lack_app(request.seq):
            return self._verdict(request, "failed", code=code)
        if request.request_id.startswith(HEAVY) and code != "set_aside":
            return self._verdict(request, "failed", code=request.request_id.split("--")[1])
        if kind == "failed" and code in FAILED_CODES:
            return self._verdict(request, kind, code=code)
        try:
            facts = self._run(request)
        except RefusedError as e:
            return self._verdict(request, "rejected", code=e.code)
        if request.function not in WITHOUT_EFFECT:
            self.last_effect_seq = request.seq
        return self._verdict(request, "done", **facts)

    def _run(self, request: Accepted) -> dict[str, Any]:
        if request.function in (UNUSABLE_ID, REPEATED_HEADER, BAD_SENDER):
            raise RefusedError(request.function)
        if request.request_id.startswith(BAD):
            raise RefusedError(request.request_id.split("--")[1])
        args = json.loads(request.body or b"{}")
        expected = args.pop("expected_version", None)
        if expected is not None and self.last_effect_seq > self.past.offset_of(expected):
            raise RefusedError("stale_version")
        if request.function == "restore":
            return self._restore(request, args)
        if request.function in APP_FUNCTIONS:
            return self._call(request, args)
        if request.function == "create_model" and "from" in args and not self.alive:
            return self._fork(request, args)
        count, answer = getattr(self, f"_{request.function}")(args)
        return {"count": count, "answer": answer}

    @staticmethod
    def _verdict(request: Accepted, kind: str, **facts: Any) -> Verdict:
        return Verdict(request.seq, request.request_id, kind, answers=request.seq, group=request.group, **facts)

    # --- functions: each returns the count that its result names, and the rows that a query answers ---

    def _table(self, args: Row) -> ExpectedTable:
        if args["table"] not in self.tables:
            raise RefusedError("unknown_table")
        return self.tables[args["table"]]

    def _call(self, request: Accepted, args: Row) -> dict[str, Any]:
        kind, code = self.past.refusal_of(request.seq) or ("", "")
        if request.function == "peek" and kind == "rejected" and code in READ_CODES:
            raise RefusedError(code)  # `OtherReads` checks whether it may
        mark = f"{self.app} {self.past.version_met(request.seq)}"
        return {**call(request.function, args, self.tables, mark), "app": mark}

    def _create_model(self, args: Row) -> tuple[None, None]:
        if self.alive:
            raise RefusedError("model_exists")
        self.app = args.get("app")
        self.alive = True
        for table in args.get("tables", []):
            self._create_table(table)
        return None, None

    def _use_app(self, args: Row) -> tuple[None, None]:
        self.app = args["app"]
        return None, None

    def _fork(self, request: Accepted, args: Row) -> dict[str, Any]:
        self.tables = self._tables_of(request, args["from"]["model"], args["from"]["version"])
        self.alive = True
        return {}

    def _restore(self, request: Accepted, args: Row) -> dict[str, Any]:
        self.tables = self._tables_of(request, request.model, args["version"])
        return {}

    def _tables_of(self, request: Accepted, model: str, version: int) -> dict[str, ExpectedTable]:
        kind, code = self.past.refusal_of(request.seq) or ("", "")
        if kind == "rejected" and self.past.may_refuse(model, version, code):
            raise RefusedError(code)
        tables = self.past.tables_of(model, version)
        if tables is None:
            raise RefusedError("unknown_version")
        return copy.deepcopy(tables)

    def _drop_model(self, _: Row) -> tuple[None, None]:
        self.alive = False
        self.tables = {}
        return None, None

    def _create_table(self, args: Row) -> tuple[None, None]:
        if args["table"] in self.tables:
            if args.get("if_not_exists"):
                return None, None
            raise RefusedError("table_exists")
        columns = {column["name"]: column["type"] for column in args["columns"]}
        self.tables[args["table"]] = ExpectedTable(columns, tuple(args.get("primary_key", ())))
        return None, None

    def _alter_table(self, args: Row) -> tuple[None, None]:
        table = self._table(args)
        if "add" in args:
            if args["add"]["name"] in table.columns:
                raise RefusedError("column_exists")
            table.columns[args["add"]["name"]] = args["add"]["type"]
            for row in table.rows.values():
                row[args["add"]["name"]] = None
        elif "drop" in args:
            table.check_columns({args["drop"]: None})
            if args["drop"] in table.key or len(table.columns) == 1:
                raise RefusedError("constraint")
            del table.columns[args["drop"]]
            for row in table.rows.values():
                del row[args["drop"]]
        else:
            ((old, new),) = args["rename"].items()
            table.check_columns({old: None})
            if new in table.columns and new != old:
                raise RefusedError("column_exists")
            table.columns = {new if name == old else name: kind for name, kind in table.columns.items()}
            table.key = tuple(new if name == old else name for name in table.key)
            for row in table.rows.values():
                row[new] = row.pop(old)
        return None, None

    def _drop_table(self, args: Row) -> tuple[None, None]:
        self._table(args)
        del self.tables[args["table"]]
        return None, None

    def _append(self, args: Row) -> tuple[int, None]:
        table = self._table(args)
        table.check_rows(args["rows"], fill=True)
        table.insert(args["rows"])
        return len(args["rows"]), None

    def _replace(self, args: Row) -> tuple[int, None]:
        table = self._table(args)
        table.check_rows(args["rows"], fill=True)
        fresh = ExpectedTable(table.columns, table.key)
        fresh.insert(args["rows"])
        table.rows = fresh.rows
        table.next_row = fresh.next_row
        return len(args["rows"]), None

    def _load(self, args: Row) -> tuple[int, None]:
        """Take the rows from beside the file: its writer has put them there as JSON."""
        rows = json.loads(Path(f"{args['uri']}.json").read_text())
        return (self._replace if args["mode"] == "replace" else self._append)({"table": args["table"], "rows": rows})

    def _upsert(self, args: Row) -> tuple[int, None]:
        table = self._table(args)
        if not table.key:
            raise RefusedError("missing_argument")
        table.check_rows(args["rows"], fill=False)
        for row in args["rows"]:
            empty = dict.fromkeys(table.columns)
            key = table.key_of(row)
            table.rows[key] = {**table.rows.get(key, empty), **row}
        return len(args["rows"]), None

    def _update(self, args: Row) -> tuple[int, None]:
        table = self._table(args)
        table.check_columns(args["set"])
        keys = table.matching(args["where"])
        for key in keys:
            table.rows[key] |= args["set"]
        return len(keys), None

    def _delete(self, args: Row) -> tuple[int, None]:
        table = self._table(args)
        keys = table.matching(args["where"])
        for key in keys:
            del table.rows[key]
        return len(keys), None

    def _sql(self, args: Row) -> tuple[int, None]:
        values = args["parameters"]
        if args["statement"] == COUNTER_SQL:
            row = self.tables["counter"].rows.get((values[1],))
            if row is not None:
                row["n"] += values[0]
            return int(row is not None), None
        if args["statement"] == PAIR_SQL:
            self.tables["pairs"].insert([{"a": values[0], "v": values[1]}, {"a": values[2], "v": values[3]}])
            return 2, None
        assert args["statement"] == DELETE_SQL
        rows = self.tables["items"].rows
        matching = [
            k for k, row in rows.items() if row["qty"] is not None and row["qty"] < values[0] and k[0] % 7 == values[1]
        ]
        for key in matching:
            del rows[key]
        return len(matching), None

    def _query(self, args: Row) -> tuple[int, list[Row]]:
        if args["sql"] == COUNTER_QUERY:
            answer = sorted(({"id": r["id"], "n": r["n"]} for r in self.tables["counter"].rows.values()), key=_by_id)
        else:
            rows = self.tables["pairs"].rows.values()
            answer = [{"c": len(rows), "s": sum(row["v"] for row in rows)}]
        return len(answer), answer

    def _archive(self, _: Row) -> tuple[None, None]:
        return None, None

    # --- comparing ---

    def content(self) -> dict[str, list[str]]:
        """Return every table as text: its columns, then its rows in order of their text."""
        return {
            name: [
                repr(list(table.columns.items())),
                *sorted(repr(tuple(r[c] for c in table.columns)) for r in table.rows.values()),
            ]
            for name, table in self.tables.items()
        }


def _by_id(row: Row) -> int:
    return int(row["id"])


def digest(content: dict[str, list[str]]) -> str:
    """Return a hash of a content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
