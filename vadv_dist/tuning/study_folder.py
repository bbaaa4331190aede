"""The folder of a study: its paths, and the record of its settings, which cannot change when it is resumed."""

import dataclasses
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from vadv_dist.config import Config, config_to_dict
from vadv_dist.config.load import build, differing_keys
from vadv_dist.config.search import SearchConfig
from vadv_dist.config.storage_url import require_sound, resolve
from vadv_dist.config.yaml_text import parse_yaml
from vadv_dist.errors import UserError
from vadv_dist.reporting.page import FIGURES
from vadv_dist.runs.folder import FAILURE, MACHINE_FIELDS, RunFolder, without_places
from vadv_dist.runs.trained_on import TrainedOn
from vadv_dist.runtime.job_storage import lasting
from vadv_dist.storage import Location, location, on_disk, remove_tree, sweep, write_text
from vadv_dist.tuning.space import Entry, Space
from vadv_dist.tuning.space_file import load_search

_DATABASE = "study.db"
PROGRESS = "progress.json"

# Settings that affect what has been searched so far; the others may change when a search is resumed.
_DECIDES = (
    *("seed", "objectives", "sampler", "generation", "storage"),
    *("scheduler", "min_epochs", "reduction", "interval", "quantile", "resample"),
)


def is_search(root: Location) -> bool:
    """Whether a folder is that of a search."""
    record = StudyFolder(root).record_path
    return record.is_file() and "search" in parse_yaml(record.read_text(encoding="utf-8"), record)


@dataclass(frozen=True)
class StudyFolder:
    """One study on storage."""

    root: Location

    @classmethod
    def of(cls, config: Config, space_name: str) -> "StudyFolder":
        """The folder of a search: named by the run that is varied and the space that it is varied in."""
        return cls(location(config.run.storage) / f"{config.run.name}-{space_name}")

    @property
    def name(self) -> str:
        """The name of the study."""
        return self.root.name

    @property
    def record_path(self) -> Location:
        """What is searched."""
        return self.root / "study.yaml"

    @property
    def trials(self) -> Location:
        """Runs of the trials, by number."""
        return self.root / "trials"

    @property
    def repeats(self) -> Location:
        """Runs of the default, the rivals and the best trials with further seeds, and of the winner without a term."""
        return self.root / "repeats"

    @property
    def student(self) -> Location:
        """The winner's student."""
        return self.root / "student"

    def claim(self, config: Config, space: Space, search: SearchConfig, trained_on: TrainedOn) -> str:
        """Create the study of a search in this folder, or check that it is already there; requires the folder's lock.

        A study in which no training has a checkpoint yet is replaced if it is another search, or if some of its
        trainings failed and would not be tried again.

        Args:
            config, space, search: what is searched.
            trained_on: the data sets and the encoder of `config`; see `RunFolder.claim`.
        Returns:
            name of the study in Optuna's storage; it is unique, so that many searches can share a storage.
        Raises:
            UserError: the folder contains another search or something else.
        """
        if search.storage is not None:
            require_sound(search.storage)
        now = _what(config, space, search)
        if not self.record_path.is_file():
            if self.root.is_dir() and any(not p.name.startswith(".") for p in self.root.iterdir()):
                raise UserError(
                    f"{self.root} exists but is not a study (it has no study.yaml), and is not overwritten. Choose "
                    "another run.name or run.storage."
                )
            self._sweep()
            study = f"{self.name}-{secrets.token_hex(4)}"
            began = {"search": now, "config": config_to_dict(config), "trained_on": trained_on.to_json()}
            self._write_record({"study": study, **began}, search)
            return study
        record = self._record()
        earlier = record["search"]
        # A setting that an earlier version did not have is its default.
        earlier["settings"] = {**_decisive(SearchConfig()), **earlier["settings"]}
        failed = any((run.root / FAILURE).is_file() for run in self._runs())
        if (failed or differing_keys(earlier, now)) and not any(run.holds_work() for run in self._runs()):
            self._clear()
            return self.claim(config, space, search, trained_on)
        if difference := TrainedOn.from_json(record["trained_on"]).differing(trained_on):
            raise UserError(
                f"The search in {self.root} was started {difference}. Use the original ones, or choose another "
                "--run.name."
            )
        then, asked = ({**each, "config": without_places(each["config"])} for each in (earlier, now))
        if rows := differing_keys(then, asked):
            listed = "\n  ".join(rows)
            raise UserError(
                f"{self.root} contains another search:\n  {listed}\n"
                "Choose another --run.name, or use the earlier values."
            )
        self._sweep()
        self._write_record(record, search)
        return str(record["study"])

    def read(self) -> tuple[str, Config, Space, SearchConfig]:
        """Name of the study in Optuna's storage, and what is searched, as it was started or resumed last.

        Raises:
            UserError: the folder is not that of a search, or of one of another version.
        """
        record = self._record()
        settings = {**_decisive(SearchConfig()), **record["search"]["settings"], **record.get("settings", {})}
        entries = record["search"]["space"].values()
        where = str(self.record_path)
        space = Space(tuple(Entry.from_json(entry) for entry in entries))
        return str(record["study"]), build(Config, record["config"], (), where), space, load_search(settings, (), where)

    def _record(self) -> dict[str, Any]:
        if not self.record_path.is_file():
            raise UserError(f"{self.root} is not the folder of a search: it has no {self.record_path.name}.")
        record: dict[str, Any] = parse_yaml(self.record_path.read_text(encoding="utf-8"), self.record_path)
        if "search" not in record:
            raise UserError(
                f"{self.root} is a study of variants (vadv study), not a search. Choose another --run.name."
            )
        return record

    def _write_record(self, record: dict[str, Any], search: SearchConfig) -> None:
        """Write the record with the settings of this start, some of which may change when a search is resumed."""
        settings = dataclasses.asdict(search)
        if record.get("settings") != settings:
            record["settings"] = settings
            write_text(self.record_path, yaml.safe_dump(record, sort_keys=False, allow_unicode=True))

    def _runs(self) -> Iterator[RunFolder]:
        for place in (self.trials, self.repeats):
            if place.is_dir():
                yield from (RunFolder(path) for path in place.iterdir())

    def _clear(self) -> None:
        """Remove a search without a checkpoint; its study in another storage stays there, unused."""
        for place in (self.trials, self.repeats):
            if place.is_dir():
                remove_tree(place)
        for path in (self.root / _DATABASE, self.root / PROGRESS, self.record_path):
            path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove partial files left by killed searches."""
        for folder in (self.root, self.root / FIGURES, *(run.root for run in self._runs())):
            sweep(folder, deep=False)

    def storage_url(self, search: SearchConfig) -> str:
        """The URL of Optuna's storage, or the path of its journal file.

        Raises:
            UserError: an environment variable is not set, or the folder cannot hold a database.
        """
        if search.storage is None:
            folder = on_disk(self.root)
            if folder is None:
                raise UserError(
                    f"{self.root} is in an object store, which cannot hold Optuna's database. Set search.storage to an "
                    "RDB URL, or to a path on this machine that ends in .log."
                )
            return f"sqlite:///{folder.resolve()}/{_DATABASE}"
        url = resolve(search.storage)
        if "://" not in url and not url.endswith(".log"):
            raise UserError(
                f"search.storage is {search.storage}, expected the name of an environment variable that holds an RDB "
                "URL such as postgresql+psycopg://HOST/NAME, or a path that ends in .log. Change that variable."
            )
        scheme, file = ("sqlite:///", url[10:]) if url.startswith("sqlite:///") else ("", url)
        return url if "://" in file or not file else scheme + lasting(file, "search.storage")


def _what(config: Config, space: Space, search: SearchConfig) -> dict[str, Any]:
    """What is searched, without where and on what it is computed."""
    raw = {
        section: {k: v for k, v in fields.items() if k not in MACHINE_FIELDS.get(section, ())}
        for section, fields in config_to_dict(config).items()
    }
    entries = {entry.field: dataclasses.asdict(entry) for entry in space.entries}
    # Through YAML, so that it can be compared with what was read from a file.
    raw_search = {"config": raw, "space": entries, "settings": _decisive(search)}
    written = yaml.safe_dump(raw_search, sort_keys=False, allow_unicode=True)
    what: dict[str, Any] = parse_yaml(written, "the search")
    return what


def _decisive(search: SearchConfig) -> dict[str, Any]:
    # The size of a population cannot change.
    decides = (*_DECIDES, "num_trials") if search.scheduler == "pbt" else _DECIDES
    return {k: v for k, v in dataclasses.asdict(search).items() if k in decides}
