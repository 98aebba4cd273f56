"""The paths of one model's files on this host."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from teatree.contracts.names import is_function_name, is_model_name


# More than ten public methods: one for each path.
@frozen
class ModelFolder:
    """The local folder of one model, below the data folder."""

    root: Path

    @property
    def lock(self) -> Path:
        """Held (flock) by the one manager that works in this folder."""
        return self.root / "manager.lock"

    @property
    def process(self) -> Path:
        """Holds pid and start time of that manager."""
        return self.root / "manager.json"

    @property
    def log(self) -> Path:
        """The output of managers."""
        return self.root / "manager.log"

    @property
    def last_exit(self) -> Path:
        """Why the last manager ended, if it could write that down; see `contracts/exit_reason.py`."""
        return self.root / "exit.json"

    @property
    def function_names(self) -> Path:
        """The names of the functions of the model's app, one a line, for shells that complete them."""
        return self.root / "functions.txt"

    @property
    def attempt(self) -> Path:
        """The batch that is being applied: after a crash, it shows which request may be the cause."""
        return self.root / "attempt.json"

    @property
    def app_import(self) -> Path:
        """Exists while the model's app is imported: after a crash, it shows that the import may be the cause."""
        return self.root / "app_import.json"

    @property
    def running(self) -> Path:
        """Names the request whose function runs, or ran when the last manager ended."""
        return self.root / "running.json"

    @property
    def stacks(self) -> Path:
        """Where the threads of the last manager were, if a function of an app kept Python's lock until it was ended."""
        return self.root / "stacks.txt"

    @property
    def read_write(self) -> Path:
        """Holds one folder an epoch."""
        return self.root / "rw"

    def epoch(self, epoch: int) -> Path:
        """Return the folder of an epoch."""
        return self.read_write / f"{epoch:020d}"

    def data(self, epoch: int, engine: str) -> Path:
        """Return where an engine keeps the read-write data of an epoch."""
        return self.epoch(epoch) / f"model.{engine}"

    @property
    def restore_wanted(self) -> Path:
        """Exists while an operator wants the next manager to restore the newest version, whatever file is here."""
        return self.root / "restore.wanted"

    @property
    def quarantine(self) -> Path:
        """Read-write files that could not be taken over, the newest kept for inspection."""
        return self.root / "quarantine"

    @property
    def spool(self) -> Path:
        """Packs that wait for upload, and those just uploaded."""
        return self.root / "spool"

    @property
    def temp(self) -> Path:
        """Temporary files of the manager, deleted when the next one takes over."""
        return self.root / "temp"

    @property
    def archive_staging(self) -> Path:
        """Parquet files that wait for upload."""
        return self.temp / "archive"

    @property
    def ledger(self) -> Path:
        """Cached ledger runs."""
        return self.root / "ledger"

    @property
    def versions(self) -> Path:
        """Local version files, `<N>.duckdb`."""
        return self.root / "versions"

    def version(self, number: int) -> Path:
        """Return the file of a local version."""
        return self.versions / f"{number}.duckdb"

    def newest_version(self) -> int:
        """Return the newest version that has a local file, 0 if none has."""
        return max((int(path.stem) for path in self.versions.glob("*.duckdb") if path.stem.isdecimal()), default=0)

    @property
    def read_temp(self) -> Path:
        """Temporary files of read workers, one folder each."""
        return self.root / "read_temp"

    @property
    def live(self) -> Path:
        """The last answers of queries that are watched, and temporary files of the process that runs them."""
        return self.root / "live"

    @property
    def distrusted(self) -> Path:
        """Exists while the local version files must not be built upon: one of them was found damaged."""
        return self.root / "versions.distrusted"

    @property
    def current(self) -> Path:
        """A link to the newest local version, switched atomically and never back."""
        return self.root / "current.duckdb"


def model_folder(data: Path, model: str) -> ModelFolder:
    """Return the local folder of a model."""
    return ModelFolder(data / model)


def read_function_names(folder: ModelFolder) -> list[str]:
    """Return the functions of the app of a model that had a manager on this host; none if that is not known."""
    try:
        return [name for name in folder.function_names.read_text().split() if is_function_name(name)]
    except (OSError, UnicodeDecodeError):
        return []


def local_models(data: Path) -> list[str]:
    """Return the names of the models that had a manager on this host, sorted; none if there is no such folder."""
    return sorted(log.parent.name for log in data.glob("*/manager.log") if is_model_name(log.parent.name))
