"""Who sent a request, its trace and the tables it wrote: from the published message to everyone who asks."""

from __future__ import annotations

from processes import MODEL, Installation, rows, table, until_async
from teatree import connect
from teatree.contracts.formats.codec import dump_json
from teatree.messaging.notices import last_notice
from teatree.storage.catalog.catalog import Catalog
from teatree.storage.catalog.postgres import Postgres
from teatree.storage.ledger.segments import read_segment

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_a_request_is_known_by_its_sender_everywhere(installation: Installation) -> None:
    """Notice, client, segment, manifest and catalog name sender, trace and tables; a resend gets the same."""
    manager = await installation.created(table("id"))
    bus = installation.bus
    body, headers = dump_json(rows(1, 2)), {"Teatree-Request-Id": "r1", "traceparent": TRACE}
    await bus.publish_log(bus.subjects.request(MODEL, "append", "anna"), body, headers)
    outcome = await installation.outcome("r1")
    assert (outcome["sender"], outcome["tables"]) == ("anna", ["t"])
    notice = await last_notice(bus, bus.subjects.notify(MODEL, "r1", "done"))
    assert notice is not None
    assert notice.headers["traceparent"] == TRACE
    async with connect(settings=installation.settings) as session:
        found = await session.model(MODEL).outcome("r1")
        assert (found.sender, found.tables, found.traceparent) == ("anna", ("t",), TRACE)
        newest = (await session.model(MODEL).versions(1))[0]
        assert (newest.senders, newest.changed_tables) == (("anna",), ("t",))
        receipt = await session.model(MODEL).append("t", [{"id": 3}])
        assert receipt.tables == ("t",)
    manifest = installation.chain.get(outcome["version"])
    (entry,) = read_segment(installation.chain.store, installation.chain.folder, manifest)
    assert (entry.outcome.sender, entry.outcome.traceparent, entry.outcome.tables) == ("anna", TRACE, ("t",))
    assert (manifest.senders, manifest.traceparents) == (("anna",), (TRACE,))
    assert {"apply", "capture.pack", "ship.pack"} <= manifest.step_us.keys()

    await bus.publish_log(bus.subjects.request(MODEL, "append", "bo"), body, {"Teatree-Request-Id": "r1"})
    assert await installation.send("append", rows(4), "r2")
    assert await installation.outcomes(["r1"]) == {"r1": outcome}

    catalog = Catalog(Postgres(installation.settings.postgres, application="test"))

    async def is_listed() -> bool:
        row = catalog.request(MODEL, "r1")
        return row is not None and (row.sender, row.traceparent, row.tables) == ("anna", TRACE, ("t",))

    await until_async(is_listed)
    plain = catalog.request(MODEL, "create")
    assert plain is not None
    assert (plain.sender, plain.traceparent, plain.tables) == (None, None, ("t",))
    assert manager.code is None


async def test_a_rejection_outside_a_model_keeps_sender_and_trace(installation: Installation) -> None:
    """The dispatcher's notice has them as a manager's would."""
    bus = installation.bus
    installation.dispatcher()
    headers = {"Teatree-Request-Id": "r1", "traceparent": TRACE}
    await bus.publish_log(bus.subjects.request(MODEL, "append", "anna"), dump_json(rows(1)), headers)
    outcome = await installation.outcome("r1")
    assert (outcome["error"]["code"], outcome["sender"]) == ("unknown_model", "anna")
    notice = await last_notice(bus, bus.subjects.notify(MODEL, "r1", "rejected"))
    assert notice is not None
    assert notice.headers == notice.headers | {"traceparent": TRACE}
