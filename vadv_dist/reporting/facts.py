"""What a run was: data, model, training, duration."""

import datetime
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from vadv_dist.reporting.markup import Markup, tag
from vadv_dist.reporting.run_files import RunRecord
from vadv_dist.reporting.tables import plain_table
from vadv_dist.reporting.words import MISSING, SPLITS, decimals, whole
from vadv_dist.runs.history import data_read
from vadv_dist.runs.records import RunResult

if TYPE_CHECKING:
    from vadv_dist.config import DataConfig

_STOPPED = {
    "epochs": "all epochs done",
    "max_steps": "trainer.max_steps reached",
    "closed_form": "determined in closed form",
    "patience": "validation no longer improved",
}


def run_facts(run: RunRecord) -> dict[str, str]:
    """Facts about a run by name; what is unknown before it is complete is left out."""
    slowest = run.history.slowest_rank_overall
    config, lines = run.config, (*run.steps, *run.epochs)
    last = datetime.datetime.fromtimestamp(max(line.time for line in lines), datetime.UTC)
    facts = {
        "Student": config.student.title,
        "Objective": _objective(config.objective),
        "Sources": _mixing(config.data),
        "Batch size": str(config.data.batch_size),
        "Peak learning rate": decimals(config.optimizer.lr),
        "Seed": str(config.run.seed),
        **(
            {"State": f"not complete; step {whole(max(line.step for line in lines))} logged"}
            if run.result is None
            else _result_facts(run.result)
        ),
        "Restarts": ", ".join(f"{count} × {cause}" for cause, count in run.history.restarts_by_cause.most_common()),
        "Goodput": "" if run.history.goodput is None else f"{run.history.goodput:.0%} of the time in steps that count",
        "Slowest rank": "" if slowest is None else f"{slowest.rank}, computing {slowest.ratio:.2f} × as long as others",
        f"Data read{' since the last restart' if run.history.restarts else ''}": data_read(run.history.node_bytes),
        "Clips per second": f"{median(line.samples_per_s for line in run.steps):.3g} (median)" if run.steps else "",
        "Last written": f"{last:%Y-%m-%d %H:%M} UTC",
    }
    return {name: value for name, value in facts.items() if value}


def data_table(data: Sequence[dict[str, Any]]) -> Markup:
    """Data sets of a run, as in its result: location, clips by split, fingerprint."""
    rows = []
    for source in data:
        counts = [whole(source["rows"][split]) if split in source["rows"] else MISSING for split in SPLITS]
        if share := source.get("train_share"):
            counts[0] = f"{whole(share['rows'])} of {counts[0]}"
        fingerprint = tag("code", source["fingerprint"][:16], title=source["fingerprint"])
        rows.append((None, (tag("code", source["place"]), *counts, fingerprint)))
    columns = ("Data set", *(f"{name.capitalize()} clips" for name in SPLITS.values()), "Fingerprint")
    return plain_table("Data sets", columns, rows)


def _result_facts(result: RunResult) -> dict[str, str]:
    cut = [
        f"{counts['cut']} of {counts['texts']} {SPLITS[split]} ({counts['share']:.1%})"
        for split, counts in result.texts_cut.items()
        if counts.get("texts")
    ]
    return {
        **{
            f"{part.capitalize()} parameters": f"{result.parameters[part] / 1e6:.3g} M"
            for part in ("student", "teacher")
            if result.parameters[part]
        },
        "Truncated texts": ", ".join(cut),
        "Engine": result.engine,
        "Workers": str(result.workers or "this process"),
        "Device": result.device,
        "Steps": whole(result.steps),
        "Epochs": str(result.epochs),
        "Best checkpoint": f"step {whole(result.best_step)}",
        "Calibration": "" if result.calibration is None else str(result.calibration),
        "Stopped because": _STOPPED.get(result.stopped, result.stopped),
        "Wall time": str(datetime.timedelta(seconds=round(result.wall_time_s))),
        "Steps per second": f"{result.steps / result.wall_time_s:.3g} with validation",
    }


def _objective(objective: Any) -> str:
    if objective.kind == "none":
        return "student alone"
    off = " and ".join(name for name in ("step1", "step2") if not getattr(objective, name, True))
    weighting = "" if objective.weighting.kind == "fixed" else f", weighted by {objective.weighting.kind}"
    route = ", prompt and video direct to the student" if getattr(objective, "route", "steps") == "direct" else ""
    return f"{objective.kind} distillation{f' without {off}' if off else ''}{route}{weighting}"


def _mixing(data: "DataConfig") -> str:
    """How several sources are mixed; empty for one."""
    if len(data.sources) < 2:
        return ""
    mixing = f"temperature {data.temperature:g}" if data.mixing == "temperature" else data.mixing
    weights = [f"{source.weight:g}" for source in data.sources]
    return f"{len(weights)}, mixed: {mixing}" + (f", weights {' : '.join(weights)}" if set(weights) != {"1"} else "")
