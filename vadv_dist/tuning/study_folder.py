"""The folder of a study: its paths, and the record of its settings, which must not change when it is resumed."""

import dataclasses
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from vadv_dist.config import Config, config_to_dict
from vadv_dist.config.load import differing_keys
from vadv_dist.config.search import SearchConfig
from vadv_dist.config.storage_url import require_sound, resolve
from vadv_dist.config.yaml_text import parse_yaml
from vadv_dist.errors import UserError
from vadv_dist.runs.folder import MACHINE_FIELDS, RunFolder, without_places
from vadv_dist.runs.trained_on import TrainedOn
from vadv_dist.runtime.job_storage import lasting
from vadv_dist.storage import Location, location, on_disk, remove_tree, sweep, write_text
from vadv_dist.tuning.space import Space

# Of a repeat that failed: kept beside its run, so that a search that goes on does not try it again.
FAILURE = "failure.json"
DATABASE = "study.db"

# Settings that decide what was searched so far; the others may change while a search goes on.
_DECIDES = (
    *("seed", "objectives", "sampler", "generation", "storage"),
    *("scheduler", "min_epochs", "reduction", "interval", "quantile", "resample"),
)


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
        """Runs of the default and the best trials under further seeds, and without a term."""
        return self.root / "repeats"

    @property
    def best_path(self) -> Location:
        """Configuration of the winner, for `vadv train`."""
        return self.root / "best.yaml"

    @property
    def result_path(self) -> Location:
        """The answer, as JSON."""
        return self.root / "tune.json"

    @property
    def report_path(self) -> Location:
        """The answer, as a page."""
        return self.root / "tune-report.html"

    @property
    def student(self) -> Location:
        """The winner's student."""
        return self.root / "student"

    def claim(self, config: Config, space: Space, search: SearchConfig, trained_on: TrainedOn | None = None) -> str:
        """Make this folder the study of a search, or find that it already is; for the holder of its lock.

        A study in which no training came to a checkpoint has nothing to lose: where it is of another search, or has
        failures that would not be tried again, it is begun anew.

        Args:
            config, space, search: what is searched.
            trained_on: what `config` names from here; see `RunFolder.claim`.
        Returns:
            name of the study in Optuna's storage; it is no other's, so that many searches may share one storage.
        Raises:
            UserError: the folder holds another search, or something that is none.
        """
        if search.storage is not None:
            require_sound(search.storage)
        what = _what(config, space, search)
        if self.record_path.is_file():
            record = parse_yaml(self.record_path.read_text(encoding="utf-8"), self.record_path)
            # A setting that an earlier version did not have is its default.
            earlier = record["search"]
            earlier["settings"] = {**_decisive(SearchConfig()), **earlier["settings"]}
            if not self._holds_work() and (differing_keys(earlier, what) or self._holds_failures()):
                self._clear()
                return self.claim(config, space, search, trained_on)
            now = what
            if trained_on is not None and "trained_on" in record:
                if difference := TrainedOn.from_json(record["trained_on"]).differing(trained_on):
                    raise UserError(
                        f"The search in {self.root} was started {difference}. Use the original ones, or choose "
                        "another --run.name."
                    )
                earlier["config"] = without_places(earlier["config"])
                now = {**what, "config": without_places(what["config"])}
            rows = differing_keys(earlier, now)
            if rows:
                listed = "\n  ".join(rows)
                raise UserError(
                    f"{self.root} holds another search:\n  {listed}\n"
                    "Choose another --run.name, or use the earlier values."
                )
            self._sweep()
            return str(record["study"])
        if self.root.is_dir() and any(not p.name.startswith(".") for p in self.root.iterdir()):
            raise UserError(
                f"{self.root} exists but is no study (it has no study.yaml), and nothing is written over it. "
                "Choose another run.name or run.storage."
            )
        self._sweep()
        study = f"{self.name}-{secrets.token_hex(4)}"
        record = {"study": study, "search": what, "config": config_to_dict(config)}
        record |= {} if trained_on is None else {"trained_on": trained_on.to_json()}
        write_text(self.record_path, yaml.safe_dump(record, sort_keys=False, allow_unicode=True))
        return study

    def _runs(self) -> Iterator[RunFolder]:
        for place in (self.trials, self.repeats):
            if place.is_dir():
                yield from (RunFolder(path) for path in place.iterdir())

    def _holds_work(self) -> bool:
        return any(run.holds_work() for run in self._runs())

    def _holds_failures(self) -> bool:
        return any((run.root / FAILURE).is_file() for run in self._runs())

    def _clear(self) -> None:
        """Remove what a search without a result has left; its study in another storage stays there, without use."""
        for place in (self.trials, self.repeats):
            if place.is_dir():
                remove_tree(place)
        for path in (self.root / DATABASE, self.record_path):
            path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove partial files left by killed searches."""
        written = (self.record_path, self.best_path, self.result_path, self.report_path, self.student)
        sweep(self.root, [path.name for path in written])

    def storage_url(self, search: SearchConfig) -> str:
        """Where Optuna keeps the study.

        Raises:
            UserError: an environment variable is not set, or the folder is no place for a database.
        """
        if search.storage is None:
            folder = on_disk(self.root)
            if folder is None:
                raise UserError(
                    f"{self.root} is in an object store, which cannot hold Optuna's database. Set search.storage to an "
                    "RDB URL, or to a path of this machine that ends in .log."
                )
            return f"sqlite:///{folder.resolve()}/{DATABASE}"
        url = resolve(search.storage)
        if "://" not in url and not url.endswith(".log"):
            raise UserError(
                f"search.storage is {search.storage}, which stands for no RDB URL (such as "
                "postgresql+psycopg://HOST/NAME) and no path that ends in .log. Change that environment variable."
            )
        scheme, file = ("sqlite:///", url[10:]) if url.startswith("sqlite:///") else ("", url)
        return url if "://" in file or not file else scheme + lasting(file, "search.storage")


def _what(config: Config, space: Space, search: SearchConfig) -> dict[str, Any]:
    """What a search is, without where and how it is computed."""
    raw = {
        section: {k: v for k, v in fields.items() if k not in MACHINE_FIELDS.get(section, ())}
        for section, fields in config_to_dict(config).items()
    }
    settings = _decisive(search)
    # Through YAML, so that what is compared is what a file gives back.
    written = yaml.safe_dump({"config": raw, "space": space.to_json(), "settings": settings}, allow_unicode=True)
    what: dict[str, Any] = parse_yaml(written, "the search")
    return what


def _decisive(search: SearchConfig) -> dict[str, Any]:
    # A population is as large as it was begun.
    decides = (*_DECIDES, "num_trials") if search.scheduler == "pbt" else _DECIDES
    return {k: v for k, v in dataclasses.asdict(search).items() if k in decides}
