from teatree.contracts.extras import extra_for

with extra_for("A manager", "server"):
    import structlog  # noqa: F401 - a missing package is reported here, not by one of the modules
