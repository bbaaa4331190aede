"""The Pareto front of a search for several objectives: no other trial is as good in all of them and better in one."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from vadv_dist.reporting.markup import join
from vadv_dist.reporting.page import Section, grid
from vadv_dist.reporting.pictures import WIDE, Picture, Point
from vadv_dist.reporting.tables import plain_table
from vadv_dist.reporting.words import MISSING, decimals
from vadv_dist.tuning.objectives import BY_KEY, Objective

if TYPE_CHECKING:
    from rich.table import Table

    from vadv_dist.tuning.result import Answer
    from vadv_dist.tuning.study import Study


def front_trials(study: "Study") -> list[FrozenTrial]:
    """Trials of the front, the best score first; of several of the same values, which NSGA-II may breed, the first."""
    front: list[FrozenTrial] = []
    for trial in sorted(study.optuna.best_trials, key=lambda trial: (trial.values[0], trial.number)):
        if study.values(trial) not in [study.values(other) for other in front]:
            front.append(trial)
    return front


def front_json(answer: "Answer") -> list[dict[str, Any]]:
    """The front as plain containers."""
    keys, score = answer.search.objectives, answer.score
    return [
        {
            "trial": trial.number,
            "objectives": dict(zip(keys, (score.value(trial.values[0]), *trial.values[1:]), strict=True)),
            "values": answer.study.values(trial),
            "config": str(answer.folder.trials / str(trial.number) / "config.yaml"),
        }
        for trial in front_trials(answer.study)
    ]


def front_table(document: Mapping[str, Any]) -> "Table":
    """The front of an answer (tune.json) as a table for a terminal, in ASCII."""
    from rich import box
    from rich.table import Table

    front: list[dict[str, Any]] = document["front"]
    objectives = [BY_KEY[key] for key in front[0]["objectives"]] if front else []
    fields = list(dict.fromkeys(name for row in front for name in row["values"]))
    fields = [name for name in fields if len({row["values"].get(name) for row in front}) > 1]
    title = f"Pareto front: {len(front)} of {document['trials']['all']} trials"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("Trial", justify="right")
    for name in (*(o.title for o in objectives), *(name.split(".")[-1] for name in fields)):
        table.add_column(_ascii(name), justify="right")
    for row in front:
        values = (row["values"].get(name, MISSING) for name in fields)
        told = [decimals(value) if isinstance(value, float) else str(value) for value in values]
        cells = (*(o.text(row["objectives"][o.key]) for o in objectives), *told)
        table.add_row(str(row["trial"]), *map(_ascii, cells))
    return table


def _ascii(text: str) -> str:
    return text.replace("−", "-").replace(MISSING, "-").replace("’", "'").replace("\u202f", ",")


def front_section(answer: "Answer") -> Section | None:
    """The front in pictures and as a table; None where there is one objective."""
    if not answer.study.has_several:
        return None
    objectives = [BY_KEY[key] for key in answer.search.objectives]
    front, all_trials = front_trials(answer.study), answer.study.trials()
    ended = [trial for trial in all_trials if trial.state == TrialState.COMPLETE]
    drawn = (front_picture(ended, front, objectives, place) for place in range(1, len(objectives)))
    pictures = [picture for picture in drawn if picture is not None]
    rows: list[tuple[str | None, list[str]]] = []
    for trial in front:
        values = {n: decimals(v) if isinstance(v, float) else str(v) for n, v in answer.study.values(trial).items()}
        others = zip(objectives[1:], trial.values[1:], strict=True)
        cells = [answer.score.of_cost(trial.values[0]), *(o.text(value) for o, value in others)]
        name = f"trial {trial.number}"
        told = ", ".join(f"{n.split('.')[-1]} {v}" for n, v in values.items())
        rows.append(("ours" if name == answer.winner else None, [name, *cells, told]))
    columns = ("Trial", *(o.heading for o in objectives), "Values")
    return Section(
        "front",
        "Pareto front",
        "No other trial is as good as one of these in all objectives and better in one. Each is one training under the "
        f"search’s own seed, so neighbours may change places under another. {rule(objectives[0])} "
        "trials/NUMBER/config.yaml holds the configuration of any other.",
        join(grid(pictures, "wide"), plain_table("Pareto front", columns, rows)),
        pictures,
    )


def rule(score: Objective) -> str:
    """How one configuration is chosen from the front."""
    return (
        f"best.yaml is chosen by {score.title}: the front’s trials of the best {score.title} are run again, and the "
        "best mean wins."
    )


def front_picture(
    ended: Sequence[FrozenTrial], front: Sequence[FrozenTrial], objectives: Sequence[Objective], place: int
) -> Picture | None:
    """Trials by the score (upwards) and another objective; the edge of the front where these two are all."""
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
        picture.line(_edge([points[number] for number in best], score.lower_is_better), "ink")
    picture.keys = [("front", "o1"), ("others", "label")]
    for on_front, role in ((False, "label"), (True, "o1")):
        kept = [trial for trial in shown if (trial.number in best) == on_front]
        titles = [
            f"Trial {trial.number}: {score.title} {score.of_cost(trial.values[0])}, "
            f"{other.title} {other.text(trial.values[place])}"
            for trial in kept
        ]
        picture.dots([points[trial.number] for trial in kept], role, titles, radius=4)
    picture.label = f"{score.title} by {other.title} of {len(shown)} trials, {len(front)} of them on the front."
    return picture


def _edge(points: Sequence[Point], low_is_good: bool) -> list[Point]:
    """Stairs along a front: from one point to the next, first as bad as the worse of both."""
    ordered = sorted(points)
    steps: list[Point] = ordered[:1]
    for (x, y), (next_x, next_y) in pairwise(ordered):
        corner = (next_x, y) if (next_y < y) == low_is_good else (x, next_y)
        steps += [corner, (next_x, next_y)]
    return steps
