from teatree.contracts.extras import extra_for

with extra_for("A stack on this machine", "embedded"):
    import cryptography  # noqa: F401 - missing packages are reported here, not by one of the modules
    import psutil  # noqa: F401
