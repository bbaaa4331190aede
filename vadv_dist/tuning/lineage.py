"""A population's lineage on the report: who went on from whom, when, and what became of the values."""

from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial

from vadv_dist.reporting.curves import figure
from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.page import Section, grid
from vadv_dist.reporting.svg import Axes, axes, drawing
from vadv_dist.reporting.tables import plain_table
from vadv_dist.reporting.words import decimals
from vadv_dist.tuning.population import records, schedules
from vadv_dist.tuning.schedule import Schedule
from vadv_dist.tuning.space import Value

if TYPE_CHECKING:
    from vadv_dist.tuning.result import Answer

_WIDE, _HIGH = 660, 300


def lineage_section(answer: "Answer") -> Section:
    """The population, its copies, and the values that led to each trial's best."""
    trials, noted = answer.study.trials(), records(answer.study)
    rows: list[tuple[str | None, list[str]]] = []
    for record in noted:
        for exploit in record["exploits"]:
            scores = [f"{record['scores'][str(exploit[who])]:.4f}" for who in ("trial", "source")]
            values = ", ".join(
                f"{name.split('.')[-1]} {_text(value)} ({exploit['how'].get(name, 'as it was')})"
                for name, value in exploit["values"].items()
                if name in {entry.field for entry in answer.space.searched}
            )
            epoch, trial, source = record["epoch"], exploit["trial"], exploit["source"]
            rows.append(
                (None, [f"after epoch {epoch}", f"trial {trial}", scores[0], f"trial {source}", scores[1], values])
            )
    columns = ("When", "Gave up", "its MAE", "went on from", "its MAE", "With")
    found = schedules(answer.study)
    lives: list[tuple[str | None, list[str]]] = [
        (
            "ours" if f"trial {trial.number}" == answer.winner else None,
            [
                f"trial {trial.number}",
                f"{trial.values[0]:.4f}" if trial.values else "failed",
                _story(found[trial.number]),
            ],
        )
        for trial in trials
    ]
    return Section(
        "lineage",
        "Lineage",
        f"{len(trials)} trials trained side by side. After every {answer.search.interval} epochs the worst gave up "
        "their weights and went on from those of one of the best, with its values a little changed. MAE is that of the "
        "epoch that had just ended.",
        join(
            grid([lineage_figure(trials, noted)], "wide"),
            plain_table("Copies", columns, rows),
            plain_table(
                "Values of the best", ("Trial", "Best MAE", "Values that led there, from which epoch on"), lives
            ),
        ),
    )


def lineage_figure(trials: list[FrozenTrial], noted: list[dict[str, Any]]) -> Markup:
    """MAE by epoch of every trial; where one took another's weights, its line falls to the other's."""
    known = [trial for trial in trials if trial.intermediate_values]
    if not known:
        return Markup()
    values = sorted(mae for trial in known for mae in trial.intermediate_values.values())
    room = (values[-1] - values[0]) * 0.08
    last = max(step for trial in known for step in trial.intermediate_values)
    area = axes(_WIDE, _HIGH, (1, last), (values[0] - room, values[-1] + room))
    parts: list[str] = [area.frame(x_label="epochs trained")]
    copies = 0
    for record in noted:
        for exploit in record["exploits"]:
            parts.append(_drop(area, record, exploit))
            copies += 1
    for trial in known:
        parts += _pieces(area, trial, noted)
    label = f"Validation MAE by epoch of {len(known)} trials that gave up {copies} times for another one's weights."
    keys = tag("span", "a trial", class_="key student")
    return figure("Validation MAE by epoch; dashed: took over the weights of", keys, drawing(area, label, *parts))


def _pieces(area: Axes, trial: FrozenTrial, noted: list[dict[str, Any]]) -> list[str]:
    """A trial's course, each stretch from where its weights then stood."""
    scores = {int(step): mae for step, mae in trial.intermediate_values.items()}
    pieces: list[list[tuple[float, float]]] = [[]]
    taken = {
        int(record["epoch"]): float(record["scores"][str(exploit["source"])])
        for record in noted
        for exploit in record["exploits"]
        if exploit["trial"] == trial.number
    }
    for step, mae in sorted(scores.items()):
        pieces[-1].append((float(step), mae))
        if step in taken:
            pieces.append([(float(step), taken[step])])
    parts: list[str] = [area.line(piece, "student") for piece in pieces if len(piece) > 1]
    for step, mae in sorted(scores.items()):
        parts.append(
            area.dot((float(step), mae), "point student", 3, f"Trial {trial.number}, epoch {step}: MAE {mae:.4f}")
        )
    return parts


def _drop(area: Axes, record: dict[str, Any], exploit: dict[str, Any]) -> Markup:
    epoch = float(record["epoch"])
    ends = [(epoch, float(record["scores"][str(exploit[who])])) for who in ("trial", "source")]
    return area.line(ends, "video")


def _story(schedule: Schedule) -> str:
    """A schedule in words."""
    told = []
    for epoch, values in schedule:
        listed = ", ".join(f"{name.split('.')[-1]} {_text(value)}" for name, value in values.items())
        told.append(f"{epoch}: {listed}" if len(schedule) > 1 else listed)
    return "; ".join(told)


def _text(value: Value) -> str:
    return decimals(value) if isinstance(value, float) else str(value)
