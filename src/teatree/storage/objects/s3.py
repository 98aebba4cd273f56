"""The object store in an S3 bucket; the only module that uses boto3.

Every call has short time-outs and a bounded number of tries with backoff: the caller decides how long to retry.
A write that must create is one put with `If-None-Match: *`; only beyond S3's limit of one put it is a multipart upload.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC
from http import HTTPStatus
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from attrs import frozen
from typing_extensions import override

from teatree.contracts.errors import Code, OperatorError, RetryError, TeatreeError
from teatree.contracts.extras import extra_for
from teatree.contracts.retry import Pauses, Retry
from teatree.storage.objects.base import (
    COPY_BYTES,
    NotFoundError,
    ObjectInfo,
    ObjectStore,
    body_size_bytes,
    check_key,
    whole_range,
)
from teatree.storage.objects.s3_errors import NOT_FOUND_CODES, S3Errors, status_of
from teatree.storage.reread import reread

with extra_for("An object store on S3", "s3"):
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

    from teatree.contracts.settings import StoreSettings

CONNECT_TIMEOUT_S = 5
"""Seconds to connect: an endpoint in reach answers in milliseconds."""
READ_TIMEOUT_S = 30
"""Seconds of silence within a reply: a multipart upload's completion can take that long."""
TRIES_MAX = 4
"""Tries of one call, with backoff by boto's standard mode: about ten seconds of refusals."""
CONFLICT_TRIES_MAX = 6
"""Tries of a conditional write while another one of the same key is under way (409)."""
CONFLICT_PAUSES = Pauses(ms_min=50)
"""The pauses between such tries."""
REDIRECT_WAIT_S = 0.2
"""Seconds before a call that was redirected (307) is tried again; doubles with each try."""
CONNECTIONS_MAX = 16
"""Connections kept: a lazy reader fetches this many blocks at once."""
SINGLE_PUT_BYTES_MAX = 32_000_000
"""Bytes up to which an overwriting body goes in one put: beyond it a lost connection would cost too much."""
CONDITIONAL_PUT_BYTES_MAX = 5_000_000_000
"""Bytes up to which a creating body goes in one put, S3's own limit of it: the condition of a multipart upload's
completion is checked by some servers before, not while, they create (SeaweedFS 4.48: two winners in an 8-way race)."""
PART_BYTES_MIN = 16_000_000
"""Bytes of a part of a multipart upload; with PARTS_AT_ONCE it bounds the memory of an upload."""
PARTS_MAX = 10_000
"""S3's own limit."""
PARTS_AT_ONCE = 3
DELETE_KEYS_MAX = 1_000
"""S3's own limit of keys in one call."""
NO_REGION = "us-east-1"
"""What servers without regions expect in signatures."""


@frozen
class S3Location:
    """The parts of a store's URL."""

    bucket: str
    prefix: str
    """Empty, or ending in a slash."""
    endpoint: str | None
    region: str


def read_location(url: str) -> S3Location:
    """Return the parts of `s3://bucket/prefix?endpoint=http://host:port&region=name`; raises `wrong_configuration`."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    endpoint = options.pop("endpoint", None)
    region = options.pop("region", NO_REGION)
    problem = None
    if "@" in parts.netloc:
        problem = "it carries credentials"
        url = f"s3://…@{parts.netloc.rpartition('@')[2]}{parts.path}"
    elif not parts.netloc or ":" in parts.netloc:
        problem = "it names no bucket"
    elif options:
        problem = f"it has unknown options: {', '.join(sorted(options))}"
    elif endpoint is not None and (urlsplit(endpoint).scheme not in ("http", "https") or "@" in endpoint):
        problem = "its endpoint is not http://host:port or https://host:port"
    if problem:
        raise OperatorError(
            Code.WRONG_CONFIGURATION,
            f"{url!r} is not an object store: {problem}.",
            where="TEATREE_STORE_URL",
            hint="Use s3://bucket/prefix?endpoint=http://host:port&region=name; credentials are separate settings.",
        )
    prefix = parts.path.strip("/")
    if prefix:
        check_key(prefix)
    return S3Location(parts.netloc, f"{prefix}/" if prefix else "", endpoint, region)


def open_s3_store(settings: StoreSettings) -> S3ObjectStore:
    """Return the store that `s3://…` names; without keys in the settings boto3 looks for credentials itself."""
    location = read_location(settings.url)
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": TRIES_MAX},
        max_pool_connections=CONNECTIONS_MAX,
        # Bucket names in host names need DNS and certificates that other servers than Amazon's do not have.
        s3={"addressing_style": "path"} if location.endpoint else {},
    )
    try:
        client = boto3.session.Session().client(
            "s3",
            endpoint_url=location.endpoint,
            region_name=location.region,
            aws_access_key_id=settings.access_key,
            aws_secret_access_key=settings.secret_key,
            config=config,
        )
    except (BotoCoreError, ValueError) as e:
        raise OperatorError(
            Code.WRONG_CONFIGURATION, f"The object store {settings.url} cannot be used: {e}", where="TEATREE_STORE_URL"
        ) from e
    # boto follows a redirect by requesting the bucket's region, follows the redirect of that request, and so on.
    client.meta.events.register("before-call.s3", _follow_no_redirect)
    retry: Any = _retry_redirected  # typed as if nothing were taken from what a handler returns
    client.meta.events.register("needs-retry.s3", retry)
    return S3ObjectStore(client, location, settings.url)


def _follow_no_redirect(params: dict[str, Any], **_: object) -> None:
    params["context"].setdefault("s3_redirect", {})["redirected"] = True


def _retry_redirected(response: tuple[Any, dict[str, Any]] | None, attempts: int, **_: object) -> float | None:
    """Return the seconds before a redirected call is tried again: a temporary redirect can have ended by then."""
    if response is None or response[0].status_code != HTTPStatus.TEMPORARY_REDIRECT or attempts >= TRIES_MAX:
        return None
    return float(REDIRECT_WAIT_S * 2 ** (attempts - 1))


class _ConflictError(RetryError):
    """Another write of the same key was under way."""


def _is_conflict(error: TeatreeError) -> bool:
    return isinstance(error, _ConflictError)


class S3ObjectStore(ObjectStore):
    """Objects in a bucket, below a prefix."""

    def __init__(self, client: S3Client, location: S3Location, url: str) -> None:
        self._client = client
        self._bucket = location.bucket
        self._prefix = location.prefix
        self._url = url
        self._errors = S3Errors(url)
        self._bucket_seen = threading.Event()

    @property
    @override
    def url(self) -> str:
        return self._url

    @override
    def get(self, key: str) -> bytes:
        return reread(lambda: self._get(key))

    def _get(self, key: str) -> bytes:
        with self._errors.translated("read", key):
            body: bytes = self._client.get_object(Bucket=self._bucket, Key=self._key(key))["Body"].read()
        return body

    @override
    def get_range(self, key: str, offset: int, length: int) -> bytes:
        if length == 0:
            return b""
        return reread(lambda: self._get_range(key, offset, length))

    def _get_range(self, key: str, offset: int, length: int) -> bytes:
        wanted = f"bytes={offset}-{offset + length - 1}"
        with self._errors.translated("read", key):
            found: bytes = self._client.get_object(Bucket=self._bucket, Key=self._key(key), Range=wanted)["Body"].read()
        return whole_range(found, key, offset, length)

    @override
    def stream(self, key: str) -> Iterator[bytes]:
        with self._errors.translated("read", key):
            body = self._client.get_object(Bucket=self._bucket, Key=self._key(key))["Body"]
        with body:
            while True:
                with self._errors.translated("read", key):
                    piece = body.read(COPY_BYTES)
                if not piece:
                    return
                yield piece

    @override
    def put(self, key: str, body: bytes | Path) -> None:
        with self._errors.translated("write", key):
            self._upload(self._key(key), body, {})

    @override
    def put_if_absent(self, key: str, body: bytes | Path) -> bool:
        retry = Retry(CONFLICT_PAUSES, tries_max=CONFLICT_TRIES_MAX, again=_is_conflict)
        return retry.call(lambda: self._create(key, body))

    def _create(self, key: str, body: bytes | Path) -> bool:
        with self._errors.translated("create", key):
            try:
                self._upload(self._key(key), body, {"IfNoneMatch": "*"})
            except ClientError as e:
                if status_of(e) == HTTPStatus.PRECONDITION_FAILED:
                    return False
                if status_of(e) != HTTPStatus.CONFLICT:
                    raise
            else:
                return True
        raise _ConflictError(
            Code.UNAVAILABLE,
            f"Could not create {key!r} in the object store {self._url}: other writes of it were under way "
            f"at each of {CONFLICT_TRIES_MAX} tries.",
            where=key,
            hint="Try again.",
        )

    @override
    def head(self, key: str) -> ObjectInfo | None:
        try:
            with self._errors.translated("look at", key):
                reply = self._client.head_object(Bucket=self._bucket, Key=self._key(key))
        except NotFoundError:
            self._require_bucket()
            return None
        return ObjectInfo(key, reply["ContentLength"], reply["LastModified"].astimezone(UTC))

    @override
    def present(self, keys: Sequence[str]) -> Sequence[str]:
        wanted = set(keys)
        found = self.list(f"{keys[0].rpartition('/')[0]}/", start_after=keys[0][:-1])
        return [info.key for info in takewhile(lambda info: info.key <= keys[-1], found) if info.key in wanted]

    @override
    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
        arguments: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._prefix + prefix}
        if start_after:
            arguments["StartAfter"] = self._prefix + start_after
        pages = iter(self._client.get_paginator("list_objects_v2").paginate(**arguments))
        while True:
            with self._errors.translated("list", prefix):
                page = next(pages, None)
            if page is None:
                return
            for found in page.get("Contents", ()):
                key = found["Key"].removeprefix(self._prefix)
                if key and not key.endswith("/"):  # consoles create such marks for folders
                    yield ObjectInfo(key, found["Size"], found["LastModified"].astimezone(UTC))

    @override
    def delete(self, keys: Iterable[str]) -> None:
        batch = []
        for key in keys:
            batch.append(check_key(key))
            if len(batch) == DELETE_KEYS_MAX:
                self._delete(batch)
                batch = []
        if batch:
            self._delete(batch)

    def _key(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _delete(self, keys: Sequence[str]) -> None:
        with self._errors.translated("delete", keys[0]):
            reply = self._client.delete_objects(
                Bucket=self._bucket, Delete={"Objects": [{"Key": self._key(key)} for key in keys], "Quiet": True}
            )
        for error in reply.get("Errors", ()):
            code = error.get("Code", "")
            if code not in NOT_FOUND_CODES:
                detail = f"{code}: {error.get('Message', '')}"
                raise self._errors.error(
                    "delete",
                    error.get("Key", "").removeprefix(self._prefix),
                    code,
                    403 if "Denied" in code else 500,
                    detail,
                )

    def _upload(self, key: str, body: bytes | Path, condition: dict[str, Any]) -> None:
        size_bytes = body_size_bytes(body)
        if size_bytes > (CONDITIONAL_PUT_BYTES_MAX if condition else SINGLE_PUT_BYTES_MAX):
            self._upload_parts(key, body, size_bytes, condition)
        elif isinstance(body, Path):
            with body.open("rb") as file:
                self._client.put_object(Bucket=self._bucket, Key=key, Body=file, **condition)
        else:
            self._client.put_object(Bucket=self._bucket, Key=key, Body=body, **condition)

    def _upload_parts(self, key: str, body: bytes | Path, size_bytes: int, condition: dict[str, Any]) -> None:
        part_bytes = max(PART_BYTES_MIN, -(-size_bytes // PARTS_MAX))
        upload_id = self._client.create_multipart_upload(Bucket=self._bucket, Key=key)["UploadId"]

        def send(index: int) -> CompletedPartTypeDef:
            part = _read_part(body, index * part_bytes, part_bytes)
            reply = self._client.upload_part(
                Bucket=self._bucket, Key=key, UploadId=upload_id, PartNumber=index + 1, Body=part
            )
            return {"PartNumber": index + 1, "ETag": reply["ETag"]}

        try:
            with ThreadPoolExecutor(PARTS_AT_ONCE, "s3-part") as pool:
                parts = tuple(pool.map(send, range(-(-size_bytes // part_bytes))))
            self._client.complete_multipart_upload(
                Bucket=self._bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": parts}, **condition
            )
        except BaseException:
            # The first error is the one to raise; the bucket's lifecycle rule removes an upload that is left open.
            with suppress(BotoCoreError, ClientError):
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id)
            raise

    def _require_bucket(self) -> None:
        """Raise if the bucket is missing, which looks like a missing object to HEAD; checked once."""
        if self._bucket_seen.is_set():
            return
        with self._errors.translated("find the bucket of", ""):
            try:
                self._client.head_bucket(Bucket=self._bucket)
            except ClientError as e:
                if status_of(e) == HTTPStatus.NOT_FOUND:
                    raise self._errors.error("use", "", "NoSuchBucket", 404, f"no bucket {self._bucket!r}") from e
                raise
        self._bucket_seen.set()


def _read_part(body: bytes | Path, offset: int, length: int) -> bytes:
    if isinstance(body, bytes):
        return body[offset : offset + length]
    with body.open("rb") as file:
        file.seek(offset)
        return file.read(length)
