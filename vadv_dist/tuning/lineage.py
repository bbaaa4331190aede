"""A population's lineage on the report: who went on from whom, when, and what became of the values."""

from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial

from vadv_dist.reporting.markup import join
from vadv_dist.reporting.page import Section, grid
from vadv_dist.reporting.pictures import WIDE, Picture, Point
from vadv_dist.reporting.tables import plain_table
from vadv_dist.reporting.words import decimals
from vadv_dist.tuning.figures import value_range
from vadv_dist.tuning.objectives import Objective
from vadv_dist.tuning.population import records, schedules
from vadv_dist.tuning.schedule import Schedule
from vadv_dist.tuning.space import Value

if TYPE_CHECKING:
    from vadv_dist.tuning.result import Answer


def lineage_section(answer: "Answer") -> Section:
    """The population, its copies, and the values that led to each trial's best."""
    trials, noted, score = answer.study.trials(), records(answer.study), answer.score
    picture = lineage_picture(trials, noted, score)
    pictures = [] if picture is None else [picture]
    rows: list[tuple[str | None, list[str]]] = []
    for record in noted:
        for exploit in record["exploits"]:
            scores = [score.of_cost(record["scores"][str(exploit[who])]) for who in ("trial", "source")]
            values = ", ".join(
                f"{name.split('.')[-1]} {_text(value)} ({exploit['how'].get(name, 'as it was')})"
                for name, value in exploit["values"].items()
                if name in {entry.field for entry in answer.space.searched}
            )
            epoch, trial, source = record["epoch"], exploit["trial"], exploit["source"]
            rows.append(
                (None, [f"after epoch {epoch}", f"trial {trial}", scores[0], f"trial {source}", scores[1], values])
            )
    columns = ("When", "Gave up", f"its {score.title}", "went on from", f"its {score.title}", "With")
    found = schedules(answer.study)
    lives: list[tuple[str | None, list[str]]] = [
        (
            "ours" if f"trial {trial.number}" == answer.winner else None,
            [
                f"trial {trial.number}",
                score.of_cost(trial.values[0]) if trial.values else "failed",
                _story(found[trial.number]),
            ],
        )
        for trial in trials
    ]
    return Section(
        "lineage",
        "Lineage",
        f"{len(trials)} trials trained side by side. After every {answer.search.interval} epochs the worst gave up "
        f"their weights and went on from those of one of the best, with its values a little changed. {score.title} is "
        "that of the epoch that had just ended.",
        join(
            grid(pictures, "wide"),
            plain_table("Copies", columns, rows),
            plain_table(
                "Values of the best",
                ("Trial", f"Best {score.title}", "Values that led there, from which epoch on"),
                lives,
            ),
        ),
        pictures,
    )


def lineage_picture(trials: list[FrozenTrial], noted: list[dict[str, Any]], score: Objective) -> Picture | None:
    """Score by epoch of every trial; where one took another's weights, its line jumps to the other's."""
    known = [trial for trial in trials if trial.intermediate_values]
    if not known:
        return None
    costs = [cost for trial in known for cost in trial.intermediate_values.values()]
    last = max(step for trial in known for step in trial.intermediate_values)
    picture = Picture("lineage", f"Validation {score.title} by epoch; dashed: took over the weights of", WIDE)
    picture.frame((1, last), value_range(costs, score), x_label="epochs trained", whole_x=True)
    jumps = [(record, exploit) for record in noted for exploit in record["exploits"]]
    for record, exploit in jumps:
        ends = (record["scores"][str(exploit[who])] for who in ("trial", "source"))
        picture.line([(float(record["epoch"]), score.value(float(cost))) for cost in ends], "o2")
    for trial in known:
        taken = {
            int(record["epoch"]): score.value(float(record["scores"][str(exploit["source"])]))
            for record, exploit in jumps
            if exploit["trial"] == trial.number
        }
        points = [(float(step), score.value(cost)) for step, cost in sorted(trial.intermediate_values.items())]
        for piece in _pieces(points, taken):
            picture.line(piece, "o1")
        titles = [
            f"Trial {trial.number}, epoch {step}: {score.title} {score.of_cost(cost)}"
            for step, cost in sorted(trial.intermediate_values.items())
        ]
        picture.dots(points, "o1", titles, radius=3)
    picture.label = (
        f"Validation {score.title} by epoch of {len(known)} trials that gave up {len(jumps)} times for another one's "
        "weights."
    )
    picture.keys = [("a trial", "o1")]
    return picture


def _pieces(points: list[Point], taken: dict[int, float]) -> list[list[Point]]:
    """A trial's course in stretches, each from where its weights then stood."""
    pieces: list[list[Point]] = [[]]
    for step, value in points:
        pieces[-1].append((step, value))
        if int(step) in taken:
            pieces.append([(step, taken[int(step)])])
    return [piece for piece in pieces if len(piece) > 1]


def _story(schedule: Schedule) -> str:
    """A schedule in words."""
    told = []
    for epoch, values in schedule:
        listed = ", ".join(f"{name.split('.')[-1]} {_text(value)}" for name, value in values.items())
        told.append(f"{epoch}: {listed}" if len(schedule) > 1 else listed)
    return "; ".join(told)


def _text(value: Value) -> str:
    return decimals(value) if isinstance(value, float) else str(value)
