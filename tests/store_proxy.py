"""An HTTP server in front of an S3 server: it forwards requests, with the errors that a test chooses."""

from __future__ import annotations

import http.client
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import boto3
from attrs import evolve

from teatree.contracts.settings import StoreSettings


class StoreProxy:
    """A proxy in front of the store of some settings. Use as a context manager."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self.ignores_conditions = False
        """Whether a write with `If-None-Match` overwrites."""
        self.ignores_ranges = False
        """Whether a range read is answered with the whole object."""
        self.redirects = 0
        """Requests that are answered with 307 to this server itself; -1 for all."""
        self.truncated = 0
        """Reads that are answered with half of the body, as if that were all; -1 for all."""
        self.delay_s = 0.0
        """Seconds before the first byte of an answer."""
        self.requests = 0
        """The number of requests so far."""
        options = dict(parse_qsl(urlsplit(settings.url).query))
        self._target = urlsplit(options["endpoint"])
        self._client = boto3.client(
            "s3",
            endpoint_url=options["endpoint"],
            region_name=options["region"],
            aws_access_key_id=settings.access_key,
            aws_secret_access_key=settings.secret_key,
        )
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def endpoint(self) -> str:
        """The URL of the proxy."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def settings(self) -> StoreSettings:
        """The settings of the store through the proxy."""
        options = dict(parse_qsl(urlsplit(self._settings.url).query))
        base = self._settings.url.partition("?")[0]
        return evolve(self._settings, url=f"{base}?{urlencode({**options, 'endpoint': self.endpoint})}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Forward one request and return its answer."""
        self.requests += 1
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        time.sleep(self.delay_s)
        if self.redirects:
            self.redirects -= self.redirects > 0
            location = f"{self.endpoint}{request.path}"
            send(request, 307, {"Location": location}, b"<Error><Code>TemporaryRedirect</Code></Error>")
            return
        if self.ignores_conditions and request.headers.get("If-None-Match"):
            bucket, _, key = request.path.lstrip("/").partition("/")
            self._client.put_object(Bucket=bucket, Key=unquote(key), Body=body)
            send(request, 200, {}, b"")
            return
        headers = dict(request.headers)
        if self.ignores_ranges:
            headers.pop("Range", None)  # not signed by boto
        connection = http.client.HTTPConnection(self._target.netloc, timeout=30)
        connection.request(request.command, request.path, body, headers)
        reply = connection.getresponse()
        found = reply.read()
        kept = {k: v for k, v in reply.getheaders() if k.lower() not in ("connection", "transfer-encoding", "date")}
        if (
            self.truncated
            and request.command == "GET"
            and reply.status in (200, 206)
            and "list-type" not in request.path
        ):
            self.truncated -= self.truncated > 0
            found = found[: len(found) // 2]
            kept = {k: v for k, v in kept.items() if not k.lower().startswith(("content-length", "x-amz-checksum"))}
        send(request, reply.status, kept, found, is_head=request.command == "HEAD")
        connection.close()


def send(
    request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes, *, is_head: bool = False
) -> None:
    """Send an answer."""
    request.send_response(status)
    for name, value in headers.items():
        if is_head or name.lower() != "content-length":
            request.send_header(name, value)
    if not is_head:
        request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if not is_head:
        request.wfile.write(body)


def _handler(proxy: StoreProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def _answer(self) -> None:
            proxy.answer(self)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _answer  # noqa: N815 - the base class looks for these names

    return Handler
