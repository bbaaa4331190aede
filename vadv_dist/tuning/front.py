"""The Pareto front of a search for several objectives: trials for which no other trial is at least as good in all."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from vadv_dist.reporting.markup import join
from vadv_dist.reporting.page import Section, grid
from vadv_dist.reporting.pictures import WIDE, Picture
from vadv_dist.reporting.tables import plain_table
from vadv_dist.reporting.words import MISSING
from vadv_dist.tuning.objectives import BY_KEY, Objective
from vadv_dist.tuning.result import SearchResult
from vadv_dist.tuning.space import value_text, values_text
from vadv_dist.tuning.study import Study

if TYPE_CHECKING:
    from rich.table import Table


def front_trials(study: Study) -> list[FrozenTrial]:
    """Trials of the front, the best score first; of several with the same values (NSGA-II repeats some), the first."""
    front: list[FrozenTrial] = []
    for trial in sorted(study.optuna.best_trials, key=lambda trial: (trial.values[0], trial.number)):
        if study.values(trial) not in [study.values(other) for other in front]:
            front.append(trial)
    return front


def front_json(result: SearchResult) -> list[dict[str, Any]]:
    """The front as plain containers."""
    keys, score = result.search.objectives, result.score
    return [
        {
            "trial": trial.number,
            "objectives": dict(zip(keys, (score.value(trial.values[0]), *trial.values[1:]), strict=True)),
            "values": result.study.values(trial),
            "config": str(result.folder.trials / str(trial.number) / "config.yaml"),
        }
        for trial in front_trials(result.study)
    ]


def front_table(document: Mapping[str, Any]) -> "Table":
    """The front in tune.json as a table for a terminal, in ASCII."""
    from rich import box
    from rich.table import Table

    front: list[dict[str, Any]] = document["front"]
    objectives = [BY_KEY[key] for key in front[0]["objectives"]] if front else []
    fields = list(dict.fromkeys(name for row in front for name in row["values"]))
    fields = [name for name in fields if len({row["values"].get(name) for row in front}) > 1]
    title = f"Pareto front: {len(front)} of {document['trials']['all']} trials"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("Trial", justify="right")
    for name in (*(o.title for o in objectives), *(name.rpartition(".")[2] for name in fields)):
        table.add_column(name, justify="right")
    for row in front:
        values = (value_text(row["values"].get(name, MISSING)) for name in fields)
        cells = (*(o.text(row["objectives"][o.key]) for o in objectives), *values)
        ascii_cells = (cell.replace("−", "-").replace(MISSING, "-").replace("\u202f", ",") for cell in cells)
        table.add_row(str(row["trial"]), *ascii_cells)
    return table


def front_section(result: SearchResult) -> Section | None:
    """The front in pictures and as a table; None with a single objective."""
    if not result.study.has_several:
        return None
    score, *others = objectives = [BY_KEY[key] for key in result.search.objectives]
    front = front_trials(result.study)
    ended = [trial for trial in result.study.trials() if trial.state == TrialState.COMPLETE]
    drawn = (front_picture(ended, front, objectives, place) for place in range(1, len(objectives)))
    pictures = [picture for picture in drawn if picture is not None]
    rows: list[tuple[str | None, list[str]]] = []
    for trial in front:
        name = f"trial {trial.number}"
        cells = [other.text(value) for other, value in zip(others, trial.values[1:], strict=True)]
        values = values_text(result.study.values(trial))
        rows.append((result.row_class(name), [name, score.cost_text(trial.values[0]), *cells, values]))
    return Section(
        "front",
        "Pareto front",
        "For each of these trials, no other trial is at least as good in every objective and better in one. Each was "
        "trained once, with the search’s seed, so neighbours may change places with another seed. best.yaml is chosen "
        f"by {score.title}: the trials of the front with the best {score.title} are trained again, and the best mean "
        "wins. trials/NUMBER/config.yaml holds the configuration of any other.",
        join(
            grid(pictures, "wide"),
            plain_table("Pareto front", ("Trial", *(o.heading for o in objectives), "Values"), rows),
        ),
        pictures,
    )


def front_picture(
    ended: Sequence[FrozenTrial], front: Sequence[FrozenTrial], objectives: Sequence[Objective], place: int
) -> Picture | None:
    """Trials by the score (upwards) and another objective; with two objectives, also the edge of the front."""
    score, other = objectives[0], objectives[place]
    best = {trial.number for trial in front}
    high = sorted(trial.values[0] for trial in ended)[: max(1, round(len(ended) * 0.95))]
    shown = [trial for trial in ended if trial.number in best or trial.values[0] in high]
    if not shown:
        return None
    points = {trial.number: (trial.values[place], score.value(trial.values[0])) for trial in shown}
    x, y = zip(*points.values(), strict=True)
    room_x, room_y = (max(x) - min(x)) * 0.05, (max(y) - min(y)) * 0.08
    picture = Picture(f"front-{other.key}", f"{score.heading} and {other.heading}", WIDE)
    picture.frame((min(x) - room_x, max(x) + room_x), (min(y) - room_y, max(y) + room_y), x_label=other.heading)
    if len(objectives) == 2:
        # A limit on the other objective that lies between two trials admits only the one on the better side.
        steps = "steps-post" if other.lower_is_better else "steps-pre"
        picture.line(sorted(points[number] for number in best), "ink", drawstyle=steps)
    picture.keys = [("front", "o1"), ("others", "label")]
    for on_front, role in ((False, "label"), (True, "o1")):
        kept = [trial for trial in shown if (trial.number in best) == on_front]
        titles = [
            f"Trial {trial.number}: {score.title} {score.cost_text(trial.values[0])}, "
            f"{other.title} {other.text(trial.values[place])}"
            for trial in kept
        ]
        picture.dots([points[trial.number] for trial in kept], role, titles, radius=4)
    picture.label = f"{score.title} by {other.title} of {len(shown)} trials, {len(front)} of them on the front."
    return picture
