"""Write the store that `test_older_versions.py` reads: `python tests/data/make_store.py FOLDER`.

Run once for each format of packs and manifests, by the first release that writes it; a store is not changed later.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from published import PublishedModel
from servers import file_store


def main() -> None:
    """Write a model with a few versions of each kind."""
    with tempfile.TemporaryDirectory() as folder:
        with PublishedModel(file_store(Path(sys.argv[1]).absolute()), Path(folder)) as model:
            model.create(
                {"sales": {"id": "BIGINT", "site": "VARCHAR", "amount": "DECIMAL(10,2)"}, "notes": {"text": "VARCHAR"}},
                storage_version="v1.4.0",
            )
            rows = [{"id": i, "site": f"site {i % 7}", "amount": f"{i}.25"} for i in range(5_000)]
            model.request("append", {"table": "sales", "rows": rows})
            model.request("append", {"table": "notes", "rows": [{"text": "ünï 🌳"}]})
            model.sql("DELETE FROM sales WHERE id % 10 = 0")
            model.request(
                "sql",
                {"statement": "UPDATE sales SET amount = amount + 1 WHERE id < 100"},
                sender="planner",
                traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            )
        with PublishedModel(file_store(Path(sys.argv[1]).absolute()), Path(folder)) as model:  # a fence
            model.request("append", {"table": "sales", "rows": [{"id": 9_999, "site": "last", "amount": "0.01"}]})


if __name__ == "__main__":
    main()
