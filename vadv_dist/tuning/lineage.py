"""The lineage of a population in the report: which trial continued from which, when, and with which values."""

import math

from optuna.trial import FrozenTrial

from vadv_dist.reporting.markup import join
from vadv_dist.reporting.page import Section, grid
from vadv_dist.reporting.pictures import WIDE, Picture, Point
from vadv_dist.reporting.tables import plain_table
from vadv_dist.runtime.terminal import counted
from vadv_dist.tuning.figures import value_range
from vadv_dist.tuning.objectives import Objective
from vadv_dist.tuning.population import Decision, decisions, schedules
from vadv_dist.tuning.result import SearchResult
from vadv_dist.tuning.space import value_text, values_text


def lineage_section(result: SearchResult) -> Section:
    """The population, its copies, and the values that led to each trial's best epoch."""
    trials, decided, score = result.study.trials(), decisions(result.study), result.score
    picture = lineage_picture(trials, decided, score)
    pictures = [] if picture is None else [picture]
    searched = {entry.field for entry in result.space.searched}
    copies: list[tuple[str | None, list[str]]] = []
    for decision in decided:
        for exploit in decision["exploits"]:
            values = ", ".join(
                f"{name.rpartition('.')[2]} {value_text(value)} ({exploit['how'].get(name, 'unchanged')})"
                for name, value in exploit["values"].items()
                if name in searched
            )
            cells = [f"after epoch {decision['epoch']}"]
            for number in (exploit["trial"], exploit["source"]):
                cells += [f"trial {number}", score.cost_text(decision["scores"][str(number)])]
            copies.append((None, [*cells, values]))
    found = schedules(result.study)
    best: list[tuple[str | None, list[str]]] = []
    for trial in trials:
        name, schedule = f"trial {trial.number}", found[trial.number]
        steps = [f"{epoch}: {values_text(v)}" if len(schedule) > 1 else values_text(v) for epoch, v in schedule]
        reached = score.cost_text(trial.values[0]) if trial.values else "failed"
        best.append((result.row_class(name), [name, reached, "; ".join(steps)]))
    columns = ("When", "Trial", f"Its {score.title}", "Continued from", f"Its {score.title}", "With")
    return Section(
        "lineage",
        "Lineage",
        f"{len(trials)} trials trained side by side. At the end of each interval, each of the worst continued from the "
        f"weights of one of the best, with its values slightly changed. {score.title} is that of the last epoch before "
        "the change.",
        join(
            grid(pictures, "wide"),
            plain_table("Copies", columns, copies),
            plain_table(
                "Values of the best epochs",
                ("Trial", f"Best {score.title}", "Values that led there, by the number of epochs before"),
                best,
            ),
        ),
        pictures,
    )


def lineage_picture(trials: list[FrozenTrial], decided: list[Decision], score: Objective) -> Picture | None:
    """Score by epoch of every trial; if a trial takes another one's weights, its line jumps to the other's."""
    known = [trial for trial in trials if trial.intermediate_values]
    if not known:
        return None
    costs = [cost for trial in known for cost in trial.intermediate_values.values()]
    last = max(step for trial in known for step in trial.intermediate_values)
    picture = Picture("lineage", f"Validation {score.title} by epoch; dashed: continued from another trial", WIDE)
    picture.frame((1, last), value_range(costs, score), x_label="epochs trained", whole_x=True)
    jumps = [
        (
            exploit["trial"],
            decision["epoch"],
            *(score.value(decision["scores"][str(n)]) for n in (exploit["trial"], exploit["source"])),
        )
        for decision in decided
        for exploit in decision["exploits"]
    ]
    for _, epoch, before, after in jumps:
        picture.line([(epoch, before), (epoch, after)], "o2")
    for trial in known:
        taken = {epoch: after for number, epoch, _, after in jumps if number == trial.number}
        points = [(float(epoch), score.value(cost)) for epoch, cost in sorted(trial.intermediate_values.items())]
        line: list[Point] = []
        for point in points:
            line.append(point)
            if point[0] in taken:
                line += [(point[0], math.nan), (point[0], taken[point[0]])]
        picture.line(line, "o1")
        titles = [
            f"Trial {trial.number}, epoch {epoch:g}: {score.title} {score.text(value)}" for epoch, value in points
        ]
        picture.dots(points, "o1", titles, radius=3)
    times = counted(len(jumps), "time")
    picture.label = (
        f"Validation {score.title} by epoch of {len(known)} trials, which continued {times} from another trial."
    )
    picture.keys = [("a trial", "o1")]
    return picture
