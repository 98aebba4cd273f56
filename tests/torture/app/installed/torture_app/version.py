"""The version of both apps; the harness writes another one in its place."""

VERSION = "1"
