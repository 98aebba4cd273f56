"""Two apps of the same functions: what they write says which of them wrote it."""
