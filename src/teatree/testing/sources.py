"""The suite of sources, which read places."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod

import pytest

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.settings import StoreSettings
from teatree.functions.sources import Sources


class SourcePlace(ABC):
    """A place of the source's kind, for one test; empty at first."""

    root: str
    """A URI below which everything may be read, without a slash at its end."""
    outside: str
    """Another one, below which nothing may be read; things can be put there, too."""
    store: StoreSettings = StoreSettings()
    """The installation's store, if the source needs it."""

    @abstractmethod
    def put(self, uri: str, body: bytes) -> None:
        """Put bytes at a URI below one of the two."""


class SourceSuite:
    """What every source does that is installed for its scheme. Override the fixture `place`."""

    @pytest.fixture
    def place(self) -> SourcePlace:
        """Return an empty place."""
        raise NotImplementedError

    @pytest.mark.parametrize("size_bytes", [0, 1, 3_000_000])
    def test_the_bytes_of_a_file(self, place: SourcePlace, size_bytes: int) -> None:
        """A local file has exactly the bytes, and the ending by which its format is known."""
        body = secrets.token_bytes(size_bytes)
        place.put(f"{place.root}/2026/rows of may.csv", body)
        with _sources(place).local_file(f"{place.root}/2026/rows of may.csv") as path:
            assert path.read_bytes() == body
            assert path.suffix == ".csv"

    def test_what_is_not_there(self, place: SourcePlace) -> None:
        """Nothing at a URI is an error of the request that names it, whether its folder exists or not."""
        place.put(f"{place.root}/a.csv", b"")
        for name in ("b.csv", "no/b.csv", "a.csv/b.csv", "a"):
            assert _refused(place, f"{place.root}/{name}") == Code.BAD_SOURCE

    def test_what_lies_outside(self, place: SourcePlace) -> None:
        """Nothing outside of the places that an operator named is read, whether it exists or not."""
        place.put(f"{place.outside}/a.csv", b"secret")
        name = place.outside.rpartition("/")[2]
        for uri in (
            f"{place.outside}/a.csv",
            f"{place.outside}/b.csv",
            f"{place.root}/../{name}/a.csv",
            f"{place.root}/%2e%2e/{name}/a.csv",
            f"{place.root}2/a.csv",
        ):
            assert _refused(place, uri) in (Code.SOURCE_NOT_ALLOWED, Code.BAD_SOURCE)


def _sources(place: SourcePlace) -> Sources:
    return Sources((place.root,), place.store)


def _refused(place: SourcePlace, uri: str) -> Code:
    """Return the code with which a source is refused."""
    with pytest.raises(RequestError) as refused, _sources(place).local_file(uri):
        pass
    return refused.value.code
