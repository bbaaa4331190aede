"""The result of a search."""

from dataclasses import dataclass

from vadv_dist.config import Config
from vadv_dist.config.search import SearchConfig
from vadv_dist.tuning.objectives import BY_KEY, Objective
from vadv_dist.tuning.space import Schedule, Space, Value, last_values
from vadv_dist.tuning.study import Study
from vadv_dist.tuning.study_folder import StudyFolder
from vadv_dist.tuning.verdict import Candidate, Verdict


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Args:
        config, space, search, folder, study: the search.
        noise: validation cost of the default by seed.
        candidates: the best trials and the rivals, trained with the same seeds.
        verdict: whether one of them is better than the default.
        winner: its name, or `default`.
        schedule: the values of the winner.
        terms: the winner without each term; `gain` is relative to the winner, so a useful term has a negative one.
        rivals: the final weights of each rival.
        collapsed: names of candidates whose weights collapsed with at least one seed.
        best_run: the winner's best run, whose student is exported; None if there is none.
        num_ended: number of trainings that have ended.
        is_complete: whether the search has ended, so that configurations without a score have failed.
    """

    config: Config
    space: Space
    search: SearchConfig
    folder: StudyFolder
    study: Study
    noise: dict[int, float]
    candidates: list[Candidate]
    verdict: Verdict
    winner: str
    schedule: Schedule
    terms: list[Candidate]
    rivals: dict[str, dict[str, float]]
    collapsed: set[str]
    best_run: Config | None
    num_ended: int
    is_complete: bool

    @property
    def values(self) -> dict[str, Value]:
        """The winner's values, those of its last epochs if they change."""
        return last_values(self.schedule)

    @property
    def score(self) -> Objective:
        """The objective that selects checkpoints and the winner."""
        return BY_KEY[self.search.objectives[0]]

    @property
    def no_score(self) -> str:
        """What a table shows for a configuration without a score."""
        return "failed" if self.is_complete else "not yet"

    def row_class(self, name: str) -> str | None:
        """The class of a configuration's row in a table of the report."""
        return "ours" if name == self.winner else None
