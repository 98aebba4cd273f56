"""The version that was the newest at some moment, and the reason why a version cannot be read any more."""

from __future__ import annotations

from datetime import datetime

from teatree.contracts.errors import Code, CorruptError, RequestError, TeatreeError
from teatree.contracts.formats.codec import parse_json, parse_utc, utc_text
from teatree.contracts.formats.manifest import Manifest
from teatree.storage.objects.base import NotFoundError
from teatree.storage.versions.chain import Chain


def version_at(chain: Chain, at: datetime) -> Manifest | None:
    """Return the newest version that was published at or before `at`, None if the model has none at all.

    A version's moment is never before its predecessor's, so it takes about log2(N) requests. Raises `unknown_version`
    if the first one is later, or if the one wanted was cleaned up.
    """
    newest = chain.newest_version()
    if not newest:
        return None
    low, high = 0, newest + 1  # low is at or before the moment, high is after it
    while high - low > 1:
        middle = (low + high) // 2
        if _moment(chain, middle) <= at:
            low = middle
        else:
            high = middle
    if not low:
        raise RequestError(
            Code.UNKNOWN_VERSION,
            f"{chain.model} had no version at {utc_text(at)}: its first is of {utc_text(_moment(chain, 1))}.",
            where="at",
            hint="`teatree versions` lists what there is.",
        )
    return chain.get(low)


def explain_missing(chain: Chain, manifest: Manifest, error: NotFoundError) -> TeatreeError:
    """Return the error for a missing object of a version: the version was cleaned up, or the object was lost."""
    try:
        chain.get(manifest.version)
    except TeatreeError as e:
        return e
    return CorruptError(
        f"Version {manifest.version} of {manifest.model} cannot be read: {error.key} is missing from the store.",
        where=error.key,
        hint=f"`teatree verify {manifest.model} --version {manifest.version}` lists what else is.",
    )


def _moment(chain: Chain, version: int) -> datetime:
    """Return when a version was published, which a stub records too."""
    key = chain.manifest_key(version)
    try:
        body = chain.store.get(key)
    except NotFoundError:
        raise chain.missing_error(version, chain.newest_version()) from None
    try:
        members = parse_json(body, key)
        return parse_utc(members["at"])
    except (RequestError, KeyError, TypeError) as e:
        raise CorruptError("The manifest has no valid time of publication.", where=key) from e
