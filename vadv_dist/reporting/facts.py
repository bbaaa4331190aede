"""What a run was: its data, its model, how it was trained and how long that took."""

import datetime
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from vadv_dist.reporting.markup import Markup, tag
from vadv_dist.reporting.run_files import Record, RunRecord
from vadv_dist.reporting.tables import plain_table
from vadv_dist.reporting.words import MISSING, SPLITS, decimals, duration, parameters, whole
from vadv_dist.runs.records import RunResult

_STOPPED = {
    "epochs": "all epochs done",
    "max_steps": "trainer.max_steps reached",
    "patience": "validation no longer improved",
}


def run_facts(run: RunRecord) -> dict[str, str]:
    """Names and values of what is worth knowing of a run; what it did not write is left out."""
    result = run.result
    config = {name: run.section(name) for name in ("student", "objective", "data", "optimizer", "run")}
    facts: dict[str, object] = {
        "Student": config["student"].get("encoder"),
        "Student’s weights": _count(result, "student"),
        "Teacher’s weights": _count(result, "teacher") if run.has_teacher else "no teacher",
        "Objective": _objective(config["objective"], run.weighting),
        "Sources": _mixing(config["data"]),
        "Texts cut": _texts_cut(result),
        "Batch size": config["data"].get("batch_size"),
        "Peak learning rate": decimals(lr) if isinstance(lr := config["optimizer"].get("lr"), int | float) else None,
        "Seed": config["run"].get("seed"),
        "Engine": result and result.engine,
        "Workers": result and (result.workers or "this process"),
        "Device": result and result.device,
        **_progress(run),
        **_speed(run),
    }
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}


def data_table(run: RunRecord) -> Markup:
    """Data sets of a run: place, clips by split, fingerprint; empty before the run has ended."""
    rows: list[tuple[str | None, Sequence[str]]] = []
    for source in _data(run):
        counts = _mapping(source, "rows")
        cells = [whole(n) if isinstance(n := counts.get(split), int) else MISSING for split in SPLITS]
        fingerprint = str(source.get("fingerprint", MISSING))
        short = tag("code", fingerprint[:16], title=fingerprint)
        rows.append((None, (tag("code", str(source.get("place") or source.get("uri", MISSING))), *cells, short)))
    columns = ("Data set", *(f"{name.capitalize()} clips" for name in SPLITS.values()), "Fingerprint")
    return plain_table("Data sets", columns, rows) if rows else Markup()


def versions(run: RunRecord) -> Markup:
    """Versions of what the run was made with, in one line."""
    names = run.result.versions if run.result is not None else {}
    return Markup(", ".join(tag("code", f"{name} {version}") for name, version in names.items()))


def rows_by_split(run: RunRecord) -> dict[str, int]:
    """Clips by split over all data sets; of splits that have any."""
    counts: dict[str, int] = {}
    for source in _data(run):
        for split, count in _mapping(source, "rows").items():
            if isinstance(count, int) and count:
                counts[split] = counts.get(split, 0) + count
    return counts


def _progress(run: RunRecord) -> dict[str, object]:
    result = run.result
    if result is None:
        last = max(line.step for line in (*run.steps, *run.epochs))
        return {"State": f"not ended; step {whole(last)} logged"}
    return {
        "Steps": whole(result.steps),
        "Epochs": result.epochs,
        "Best checkpoint": f"step {whole(result.best_step)}",
        "Ended because": _STOPPED.get(result.stopped, result.stopped),
    }


def _speed(run: RunRecord) -> dict[str, object]:
    facts: dict[str, object] = {}
    if run.result is not None and run.result.wall_time_s > 0:
        facts["Wall time"] = duration(run.result.wall_time_s)
        facts["Steps per second"] = f"{run.result.steps / run.result.wall_time_s:.3g} with validation"
    if run.steps:
        facts["Clips per second"] = f"{median(line.samples_per_s for line in run.steps):.3g} (median)"
    last = max(line.time for line in (*run.steps, *run.epochs))
    facts["Last written"] = f"{datetime.datetime.fromtimestamp(last, datetime.UTC):%Y-%m-%d %H:%M} UTC"
    return facts


def _objective(config: Record, weighting: str) -> str:
    if config.get("kind") == "none":
        return "student alone"
    off = [name for name in ("step1", "step2") if config.get(name) is False]
    weighed = "" if weighting == "fixed" else f", weighed by {weighting}"
    return f"{config.get('kind', 'step')} distillation" + (f" without {' and '.join(off)}" if off else "") + weighed


def _mixing(data: Record) -> str | None:
    """How several sources were read as one."""
    sources = data.get("sources")
    if not isinstance(sources, Sequence) or len(sources) < 2:
        return None
    mixing = str(data.get("mixing", "proportional"))
    if mixing == "temperature":
        mixing = f"temperature {data.get('temperature')}"
    weights = [str(source.get("weight", 1)) for source in sources if isinstance(source, Mapping)]
    weighed = "" if set(weights) <= {"1", "1.0"} else f", weights {' : '.join(weights)}"
    return f"{len(sources)}, mixed: {mixing}{weighed}"


def _texts_cut(result: RunResult | None) -> str | None:
    """How many texts were longer than the student reads."""
    parts = []
    for split, counts in result.texts_cut.items() if result is not None else ():
        if counts.get("texts"):
            parts.append(f"{counts['cut']} of {counts['texts']} {SPLITS.get(split, split)} ({counts['share']:.1%})")
    return ", ".join(parts) or None


def _count(result: RunResult | None, part: str) -> str | None:
    return None if result is None else parameters(result.parameters[part])


def _data(run: RunRecord) -> list[dict[str, Any]]:
    return run.result.data if run.result is not None else []


def _mapping(record: Record, name: str) -> Mapping[str, object]:
    part = record.get(name)
    return part if isinstance(part, Mapping) else {}
