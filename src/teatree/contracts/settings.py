"""Every setting with its default; `environment` reads them once, and they are passed on.

A member is a setting as it stands: its name makes the variable's, its default's type the type (a number or a text).
"""

from __future__ import annotations

import socket
from pathlib import Path

from attrs import evolve, field, frozen

from teatree.contracts.live_settings import LiveSettings
from teatree.contracts.names import check_sender
from teatree.contracts.read_settings import ZERO_ALLOWED, ReadSettings

VARIABLE = "variable"
"""Key in a member's metadata: its environment variable, if that is not `TEATREE_<GROUP>_<NAME>`."""
CHECK = "check"
"""Key: what returns a text that was given, or raises `RequestError`; an empty text is not given."""
OF_ONE_PROCESS = "of_one_process"
"""Key: true for a member that is not passed on with the connection to other processes."""


@frozen
class NatsSettings:
    """How to reach NATS."""

    url: str = ""
    """`nats://host:4222`, or `tls://host:4222`; empty: not set, nothing is assumed."""
    user: str | None = None
    """The name to log in with; none if left out."""
    password: str | None = field(default=None, repr=False)
    """Its password; never shown."""
    ca: str | None = None
    """File (PEM) of the authorities that a TLS server's certificate is checked against; the system's if left out."""
    prefix: str = field(default="teatree", metadata={VARIABLE: "TEATREE_PREFIX"})
    """First token of every subject: several installations can share one NATS."""
    sender: str | None = field(
        default=None, metadata={VARIABLE: "TEATREE_SENDER", CHECK: check_sender, OF_ONE_PROCESS: True}
    )
    """Who sends the requests of this process: the last token of their subjects. If left out it is made of the user's
    name in the operating system; `_` is no one in particular."""


@frozen
class PostgresSettings:
    """How to reach PostgreSQL."""

    url: str | None = field(default=None, repr=False)
    """libpq URL; it may carry a password, so it is never shown."""
    password: str | None = field(default=None, repr=False)
    """The password, if the URL does not hold it; never shown."""
    reader_url: str | None = field(default=None, repr=False)
    """libpq URL, with its password, of a role that only reads the catalog: for people and their tools."""


@frozen
class StoreSettings:
    """How to reach the object store."""

    url: str = ""
    """Empty: not set, nothing is assumed; else `file:///folder` or `s3://bucket/prefix?endpoint=http://host:port&region=name`."""
    access_key: str | None = None
    """The key's id in S3; boto3's own search for credentials if left out."""
    secret_key: str | None = field(default=None, repr=False)
    """The key's secret; never shown."""


def store_at(settings: StoreSettings, place: str) -> StoreSettings:
    """Return the settings of another store: a URL, or the path of a local folder."""
    return evolve(settings, url=place if "://" in place else Path(place).absolute().as_uri())


@frozen
class LimitSettings:
    """The limits of one model's manager; each bounds a queue, a size, a time or a count."""

    batch_requests_max: int = 4_000
    """Requests in one transaction: beyond this a longer batch only adds latency."""
    batch_bytes_max: int = 64_000_000
    """Bytes of bodies in one transaction: bounds the memory of a batch to a few times this."""
    read_ahead_bytes_max: int = 32_000_000
    """Bytes read from the log at once, while the previous batch is applied."""
    request_bytes_max: int = 8_000_000
    """Bytes of one request's body; NATS' own `max_payload` applies before it."""
    rows_bytes_max: int = 512_000_000
    """Bytes of one request's rows once decoded, or once made by `sql`: a small body must not fill the memory, nor a
    short statement."""
    load_bytes_max: int = 20_000_000_000
    """Bytes that one `load` may add to the model's file: its rows stream. What DuckDB keeps in memory of them until the
    commit (a few long texts) may take half of `memory_bytes_max`."""
    request_time_ms_max: int = 60_000
    """Milliseconds that one request may run in the database before it is interrupted and `failed`: the others of its
    model wait for it."""
    load_time_ms_max: int = 300_000
    """The same for those that copy whole tables: `load` and `restore`."""
    query_time_ms_max: int = 60_000
    """Milliseconds that one query may run."""
    stuck_ms_max: int = field(default=2_000, metadata=ZERO_ALLOWED)
    """Milliseconds that a request may still run once it was interrupted, below 5,000; then its manager exits, and the
    next one answers it `timed_out` without another try."""
    query_rows_max: int = 10_000_000
    """Rows of one query's result over all pages."""
    page_rows_max: int = 10_000
    """Rows in one page of a query's result."""
    page_bytes_max: int = 750_000
    """Bytes of a page that travels in a notice; a larger one lies in the object store and the notice refers to it."""
    result_bytes_max: int = 1_000_000
    """Bytes of JSON that a function of an app may return, other than rows in pages: outcomes are held in memory, and
    kept for as long as ids are remembered."""
    pages_max: int = 1_000
    """Pages of one result: each is a separate object."""
    pages_inline_max: int = field(default=100, metadata=ZERO_ALLOWED)
    """Pages of one result that travel in notices; the rest are referred to."""
    load_retry_ms_max: int = field(default=30_000, metadata=ZERO_ALLOWED)
    """Milliseconds for which a `load` is retried while its source is unavailable, before it is `failed`."""
    memory_bytes_max: int = 1_000_000_000
    """DuckDB's `memory_limit` of the writer."""
    unaccounted_bytes_max: int = 512_000_000
    """Bytes of private memory that the statement of a request may take beyond `memory_bytes_max`: what functions and
    results allocate outside of DuckDB's accounting, `rows_bytes_max`. An allocation beyond it fails at once."""
    resident_bytes_max: int = field(default=4_000_000_000, metadata=ZERO_ALLOWED)
    """Private bytes that a manager may have in memory before what it runs is interrupted, 0 for no limit: below
    `process_memory_bytes_max`, at which any thread may fail, and above what DuckDB takes by its `memory_limit`."""
    temp_bytes_max: int = 20_000_000_000
    """DuckDB's `max_temp_directory_size`."""
    threads: int = 2
    """DuckDB's threads."""
    remember_days: int = 30
    """Days for which a request id is remembered; longer than the log keeps requests."""
    remember_rows_max: int = 200_000_000
    """Request ids remembered at most, the newest ones: bounds the ledger's disk at 16 bytes an id."""
    kill_tries_max: int = 3
    """Times that a request may crash its manager before it is set aside as `failed`."""
    disk_free_bytes_min: int = field(default=200_000_000, metadata=ZERO_ALLOWED)
    """Free bytes on the data folder's disk below which nothing new is applied."""


@frozen
class ManagerSettings:
    """How a manager behaves over time."""

    lease_ms: int = 10_000
    """Milliseconds that a lease holds without renewal."""
    idle_exit_ms: int = field(default=300_000, metadata=ZERO_ALLOWED)
    """Milliseconds without a request after which a manager drains and exits; 0: never."""
    poll_ms: int = 2_000
    """Milliseconds between reads of the log when no wake hint comes: hints can be lost."""
    take_over_wait_ms: int = field(default=20_000, metadata=ZERO_ALLOWED)
    """Milliseconds that a second manager waits for the first one's lease before it exits."""
    versions_kept: int = 2
    """Local version files kept, apart from those that a reader has open: the newest and one behind."""
    local_grace_ms: int = field(default=1_000, metadata=ZERO_ALLOWED)
    """Milliseconds for which a superseded local file keeps its name, and as long again its bytes."""
    local_copy_bytes_max: int = field(default=32_000_000, metadata=ZERO_ALLOWED)
    """Bytes up to which a local file is made by copying the one before rather than from a spare."""
    local_spares: int = field(default=2, metadata=ZERO_ALLOWED)
    """Old local files beyond `versions_kept` whose bytes the next versions may take over."""
    local_files_max: int = 16
    """Old local files not yet removed at which the next version waits: bounds the disk of a small, busy model."""
    process_memory_bytes_max: int = field(default=6_000_000_000, metadata=ZERO_ALLOWED)
    """Bytes of private memory that the kernel gives a manager, 0 for no limit: DuckDB's `memory_bytes_max` twice (the
    writer's and that of archives), and room for a batch; what is allocated outside DuckDB's limit fails at it."""
    archive_interval_ms: int = field(default=1_000, metadata=ZERO_ALLOWED)
    """Milliseconds between Parquet archives of a busy model: they lag and coalesce."""
    head_interval_ms: int = field(default=1_000, metadata=ZERO_ALLOWED)
    """Milliseconds between copies of a busy model's newest manifest: one that vanishes sooner is missed only by
    the catalog and by its readers; each costs a small write and three small reads."""
    apps: str = ""
    """Names of the apps that a model may have, separated by commas; all that are installed if it is empty. A request
    can name an app, never a module."""
    app_import_ms_max: int = 30_000
    """Milliseconds that the import of a model's app may take; without it the built-in functions are served."""
    app_reload: int = field(default=0, metadata=ZERO_ALLOWED)
    """1 while an app is developed: its code may change under one version, and a manager leaves when it has changed."""


@frozen
class DispatcherSettings:
    """How the dispatcher behaves over time."""

    launcher: str = "process"
    """What starts managers: `process`, on this host, or the launcher of this name of an installed package."""
    poll_ms: int = 2_000
    """Milliseconds between checks of every model."""
    retention_days: float = 7.0
    """Days for which the log keeps what is applied; shorter than ids are remembered."""
    purge_interval_ms: int = 60_000
    """Milliseconds between checks for requests that may be purged."""
    restart_ms_min: int = 100
    """Milliseconds before a crashed manager is started again; doubles with each crash."""
    restart_ms_max: int = 30_000
    """The longest such wait."""
    hanging_ms_min: int = 6_000
    """Milliseconds for which a running manager's lease must stay ended before a successor is started: more than the
    manager takes to renew it once PostgreSQL is available again."""
    managers_max: int = 64
    """Managers on this host: for a further model the least recently used idle one is asked to end."""
    evict_idle_ms_min: int = field(default=5_000, metadata=ZERO_ALLOWED)
    """Milliseconds without a request or read after which a manager may be asked to end for another model's: with more
    busy models than places each would otherwise be started again and again."""
    request_log_days: float = 90.0
    """Days for which PostgreSQL lists requests that have ended, longer than the log keeps them; 0: for ever."""
    log_bytes_max: int = 10_000_000_000
    """Bytes of the log, if it is created now: beyond them requests are refused with `log_full`."""
    notices_max: int = 300_000
    """Notices kept, if their stream is created now: every one costs the server some 500 bytes of memory."""
    notices_age_ms: int = 86_400_000
    """Milliseconds for which a notice is kept, if their stream is created now."""


@frozen
class RetentionSettings:
    """Which versions are kept, besides the newest and those that are pinned; the others are cleaned up."""

    keep_all_hours: float = 24.0
    """Hours for which every version is kept: a reader of one is safe that long, without a pin."""
    hourly_days: float = 7.0
    """Days for which the last version of every hour (UTC) is kept."""
    daily_days: float = 365.0
    """Days for which the last version of every day (UTC) is kept."""
    grace_ms: int = field(default=60_000, metadata=ZERO_ALLOWED)
    """Milliseconds for which every version is kept whatever the other settings: a reader may be about to open it."""
    archive_hours: float = 1.0
    """Hours for which a Parquet archive is kept that no request asked for; then it is thinned as versions are."""
    page_hours: float = 24.0
    """Hours for which the further pages of a direct read are kept."""
    dead_letter_days: float = 90.0
    """Days for which a request that was set aside is kept for inspection, longer than the log keeps it."""
    interval_ms: int = field(default=3_600_000, metadata=ZERO_ALLOWED)
    """Milliseconds between a manager's clean-ups of its model; 0: it makes none, `teatree gc` does."""


@frozen
class ScrubSettings:
    """How a manager looks for damage in the store."""

    interval_ms: int = field(default=60_000, metadata=ZERO_ALLOWED)
    """Milliseconds from one version's check to the next one's, at most; 0: never."""
    bytes_per_s: int = 4_000_000
    """Bytes a second that are read on average while a version is checked."""


@frozen
class BreakerSettings:
    """The circuit breakers round the object store (managers, the dispatcher) and PostgreSQL (managers)."""

    failures_max: int = 3
    """Failures in a row of all calls to one of them after which it is unavailable; lost connections do not count."""
    open_ms_min: int = 100
    """Milliseconds for which it is then not called, less up to half; doubles with each probe that fails."""
    open_ms_max: int = 3_000
    """The longest such time: what waits resumes that soon after it recovers. A slow probe delays the next no longer."""
    slow_ms: int = 5_000
    """Milliseconds after which a call of the object store that has not returned is what a model waits for, as `teatree
    models` shows: longer than a pack takes to be uploaded."""


@frozen
class CacheSettings:
    """Cache limits of a lazy reader."""

    bytes_max: int = 10_000_000_000
    """Bytes of the cache folder, by all processes of this user together."""
    memory_bytes_max: int = 64_000_000
    """Bytes of blocks in memory for one attached model, beside DuckDB's own."""
    read_ahead_bytes_max: int = 8_000_000
    """Bytes that one scan is read ahead at most."""
    follow_poll_ms: int = 1_000
    """Milliseconds between checks for a newer version."""


@frozen
class Settings:
    """All settings of one process."""

    nats: NatsSettings = NatsSettings()
    postgres: PostgresSettings = PostgresSettings()
    store: StoreSettings = StoreSettings()
    limits: LimitSettings = LimitSettings()
    manager: ManagerSettings = ManagerSettings()
    reads: ReadSettings = ReadSettings()  # noqa: RUF009  it is frozen
    live: LiveSettings = LiveSettings()  # noqa: RUF009
    dispatcher: DispatcherSettings = DispatcherSettings()
    retention: RetentionSettings = RetentionSettings()
    scrub: ScrubSettings = ScrubSettings()
    breaker: BreakerSettings = BreakerSettings()
    cache: CacheSettings = CacheSettings()
    cache_folder: Path | None = None
    """Where lazy readers keep blocks, shared by all processes of this user; no cache if it is empty."""
    data: Path = Path("teatree-data")
    """The local folder: read-write files, local versions, caches."""
    host: str = field(factory=socket.gethostname)
    """The name under which this host holds leases."""
    load_roots: tuple[str, ...] = ()
    """Places that `load` may read: folders, or `s3://bucket/prefix`. None by default."""
    failpoints: str | None = None
    """Places at which a test crashes, stops or delays a process; never set it otherwise."""
