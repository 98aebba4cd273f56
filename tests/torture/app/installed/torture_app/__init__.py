"""Two apps of the same functions: what they write names the one that wrote it."""
