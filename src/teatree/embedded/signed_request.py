"""One signed S3 request over plain HTTP, to probe whether a server that just started accepts requests.

Not boto3: `teatree up` uses it for nothing else, and importing it and making its first client takes 0.24 s of CPU time.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
from datetime import UTC, datetime

from attrs import field, frozen

_TIMEOUT_S = 5
_REGION = "us-east-1"


@frozen
class S3Access:
    """An S3 server on a loopback port, and the keys that it accepts."""

    host: str
    port: int
    access_key: str
    secret_key: str = field(repr=False)


def signed_status(access: S3Access, method: str, path: str, body: bytes = b"") -> int | None:
    """Return the status of the response to a request signed by AWS' version 4; None if there is no response."""
    connection = http.client.HTTPConnection(access.host, access.port, timeout=_TIMEOUT_S)
    try:
        connection.request(method, path, body=body, headers=_headers(access, method, path, body))
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _headers(access: S3Access, method: str, path: str, body: bytes) -> dict[str, str]:
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    signed = {
        "host": f"{access.host}:{access.port}",
        "x-amz-content-sha256": digest,
        "x-amz-date": moment,
    }
    names = ";".join(signed)
    canonical = "\n".join([method, path, "", *(f"{name}:{value}" for name, value in signed.items()), "", names, digest])
    scope = f"{moment[:8]}/{_REGION}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{access.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"Credential={access.access_key}/{scope}"
    return {**signed, "authorization": f"AWS4-HMAC-SHA256 {credential}, SignedHeaders={names}, Signature={signature}"}
