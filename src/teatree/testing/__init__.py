"""Suites that a replaceable part must pass: inherit from one in a test file, and override its fixture."""

from teatree.contracts.extras import extra_for

with extra_for("A suite of teatree.testing", "testing"):
    import pytest

pytest.register_assert_rewrite(
    *(f"{__name__}.{name}" for name in ("engine_model", "engines", "formats", "launchers", "sources", "stores"))
)
