"""Errors of an S3 server or boto as Teatree errors, which state whether to try again, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import urlsplit

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.errors import Code, CorruptError, OperatorError, RetryError, TeatreeError
from teatree.contracts.extras import extra_for
from teatree.storage.objects.base import NotFoundError

with extra_for("An object store on S3", "s3"):
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        FlexibleChecksumError,
        HTTPClientError,
        IncompleteReadError,
        NoCredentialsError,
        PartialCredentialsError,
        ResponseStreamingError,
    )
    from botocore.exceptions import (
        ConnectionError as BotoConnectionError,
    )

NOT_FOUND_CODES = frozenset({"NoSuchKey", "404", "NotFound"})
_CONFIGURATION = frozenset(
    {"NoSuchBucket", "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)
_SKEWED = "RequestTimeTooSkewed"
_TRANSIENT = frozenset({"RequestTimeout", "SlowDown", "NoSuchUpload", _SKEWED})
"""`NoSuchUpload`: a completion whose reply was lost was tried again; the caller's next try sees what is there.
A wrong clock can be corrected: the call is tried until it is."""
CLOCK_SKEW_MAX_S = 900
"""Seconds by which a host's clock may differ from a server's, by S3's own rule: no request is taken beyond it."""
_TRANSIENT_STATUS = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS})
_REDIRECTS = frozenset(
    {HTTPStatus.MOVED_PERMANENTLY, HTTPStatus.FOUND, HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.PERMANENT_REDIRECT}
)


class S3Errors:
    """Errors of one store."""

    def __init__(self, url: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self._url = url
        self._clock = clock

    @contextmanager
    def translated(self, operation: str, key: str) -> Iterator[None]:
        """Raise what the block raises as a Teatree error."""
        try:
            yield
        except ClientError as e:
            error = e.response.get("Error", {})
            code = error.get("Code", "")
            status = status_of(e)
            detail = f"{code}: {error.get('Message') or 'no reason given'} (HTTP {status})"
            if abs(skew_s := _clock_skew_s(e, self._clock)) > CLOCK_SKEW_MAX_S:
                code = _SKEWED
                way = "ahead of" if skew_s > 0 else "behind"
                detail += f"; set this host's clock, it is {abs(skew_s) / 60:.0f} min {way} the store's"
            if status in _REDIRECTS:
                raise self._redirected(operation, key, e) from e
            raise self.error(operation, key, code, status, detail) from e
        except (NoCredentialsError, PartialCredentialsError) as e:
            raise self.error(operation, key, "AccessDenied", 403, str(e)) from e
        except (BotoConnectionError, HTTPClientError, IncompleteReadError, ResponseStreamingError) as e:
            raise self.error(operation, key, "", 503, str(e)) from e
        except FlexibleChecksumError as e:
            raise CorruptError(f"Data from the object store {self._url} is damaged: {e}.", where=key) from e
        except BotoCoreError as e:
            raise self.error(operation, key, "", 400, str(e)) from e

    def error(self, operation: str, key: str, code: str, status: int, detail: str) -> TeatreeError:
        """Return the Teatree error for a server's error."""
        message = f"Could not {operation} {key!r} in the object store {self._url}: {detail}."
        if code in _CONFIGURATION:
            hint = "Check the bucket, the region and the endpoint."
            return OperatorError(Code.WRONG_CONFIGURATION, message, where="TEATREE_STORE_URL", hint=hint)
        if code in NOT_FOUND_CODES:
            return NotFoundError(key, self._url)
        if code in _TRANSIENT or status in _TRANSIENT_STATUS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return RetryError(Code.UNAVAILABLE, message, where=key, hint="Try again when the object store is back.")
        match status:
            case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
                hint = "Check TEATREE_STORE_ACCESS_KEY and _SECRET_KEY, what they may do, and this host's clock."
                return OperatorError(Code.NOT_AUTHORIZED, message, where=key, hint=hint)
            case HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return CorruptError(message, where=key, hint="The object is shorter than its reference states.")
            case _:
                hint = "The server refuses what S3 allows: check it."
                return OperatorError(Code.WRONG_CONFIGURATION, message, where=key, hint=hint)

    def _redirected(self, operation: str, key: str, error: ClientError) -> TeatreeError:
        """Return the error for a redirect: a permanent one means a wrong setting, a temporary one is retried."""
        headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        region, place = headers.get("x-amz-bucket-region"), headers.get("location")
        ways = [f"region={region}"] if region else []
        ways += [f"endpoint={urlsplit(place).scheme}://{urlsplit(place).netloc}"] if place else []
        hint = f"Set {' or '.join(ways) or 'region and endpoint'} in TEATREE_STORE_URL, to where the bucket is."
        message = (
            f"Could not {operation} {key!r} in the object store {self._url}: it redirects to"
            f" {place or region or 'another place'} (HTTP {status_of(error)})."
        )
        if status_of(error) == HTTPStatus.TEMPORARY_REDIRECT:
            return RetryError(Code.UNAVAILABLE, message, where=key, hint=f"If that does not end: {hint}")
        return OperatorError(Code.WRONG_CONFIGURATION, message, where="TEATREE_STORE_URL", hint=hint)


def status_of(error: ClientError) -> int:
    """Return the HTTP status of an error."""
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _clock_skew_s(error: ClientError, clock: Clock) -> float:
    """Return by how many seconds this host's clock is ahead of that of the server which refused a request for it."""
    if status_of(error) not in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return 0
    date = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        return clock.now().timestamp() - parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return 0
