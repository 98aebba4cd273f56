"""The suites of sources and formats on those of ours."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from attrs import evolve
from pyarrow import csv, feather, parquet
from typing_extensions import override

from teatree.contracts.settings import StoreSettings
from teatree.storage.objects.stores import open_store
from teatree.testing.formats import FileForm, FormatSuite
from teatree.testing.sources import SourcePlace, SourceSuite


class _Folder(SourcePlace):
    def __init__(self, folder: Path, scheme: str) -> None:
        self.root, self.outside = f"{scheme}{folder}/allowed", f"{scheme}{folder}/forbidden"

    @override
    def put(self, uri: str, body: bytes) -> None:
        path = Path(uri.removeprefix("file://"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)


class TestFileSource(SourceSuite):
    """Files of the host, named by path or by URI."""

    @pytest.fixture(params=["", "file://"])
    def place(self, request: pytest.FixtureRequest, tmp_path: Path) -> SourcePlace:
        """Return two folders."""
        return _Folder(tmp_path, request.param)


class _Bucket(SourcePlace):
    def __init__(self, settings: StoreSettings) -> None:
        self.store = settings
        place = settings.url.partition("?")[0]
        self.root, self.outside = f"{place}/allowed", f"{place}/forbidden"

    @override
    def put(self, uri: str, body: bytes) -> None:
        parts = urlsplit(uri)
        url = f"s3://{parts.netloc}/?{urlsplit(self.store.url).query}"
        open_store(evolve(self.store, url=url)).put(parts.path.lstrip("/"), body)


class TestS3Source(SourceSuite):
    """Objects in the bucket of the store."""

    @pytest.fixture
    def place(self, s3_server: StoreSettings) -> SourcePlace:
        """Return two prefixes."""
        return _Bucket(s3_server)


class _Parquet(FileForm):
    ending = ".parquet"

    @override
    def write(self, path: Path, rows: pa.Table) -> None:
        parquet.write_table(rows, path)


class _Csv(FileForm):
    ending = ".csv"

    @override
    def write(self, path: Path, rows: pa.Table) -> None:
        csv.write_csv(rows, path)


class _Arrow(FileForm):
    def __init__(self, ending: str) -> None:
        self.ending = ending

    @override
    def write(self, path: Path, rows: pa.Table) -> None:
        feather.write_feather(rows, str(path))


class TestFormats(FormatSuite):
    """Each format of ours."""

    @pytest.fixture(params=[_Parquet(), _Csv(), _Arrow(".arrow"), _Arrow(".feather"), _Arrow(".ipc")])
    def form(self, request: pytest.FixtureRequest) -> FileForm:
        """Return how its files are made."""
        made: FileForm = request.param
        return made
