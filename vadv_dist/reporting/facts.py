"""What a run was: its data, its model, how it was trained and how long that took."""

import datetime
from collections.abc import Mapping, Sequence
from statistics import median

from vadv_dist.reporting.markup import Markup, tag
from vadv_dist.reporting.run_files import Record, RunRecord
from vadv_dist.reporting.tables import plain_table
from vadv_dist.reporting.words import MISSING, SPLITS, decimals, duration, parameters, whole

_STOPPED = {
    "epochs": "all epochs done",
    "max_steps": "trainer.max_steps reached",
    "patience": "validation no longer improved",
}


def run_facts(run: RunRecord) -> dict[str, str]:
    """Names and values of what is worth knowing of a run; what it did not write is left out."""
    result = run.result or {}
    config = {name: run.section(name) for name in ("student", "objective", "data", "optimizer", "run")}
    facts: dict[str, object] = {
        "Student": config["student"].get("encoder"),
        "Student’s weights": _count(result, "student"),
        "Teacher’s weights": _count(result, "teacher") if run.has_teacher else "no teacher",
        "Objective": _objective(config["objective"]),
        "Sources": _mixing(config["data"]),
        "Texts cut": _texts_cut(result),
        "Batch size": config["data"].get("batch_size"),
        "Peak learning rate": decimals(lr) if isinstance(lr := config["optimizer"].get("lr"), int | float) else None,
        "Seed": config["run"].get("seed"),
        "Engine": result.get("engine"),
        "Workers": _workers(result.get("workers")),
        "Device": result.get("device"),
        **_progress(run, result),
        **_speed(run, result),
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
    names = _mapping(run.result or {}, "versions")
    return Markup(", ".join(tag("code", f"{name} {version}") for name, version in names.items()))


def rows_by_split(run: RunRecord) -> dict[str, int]:
    """Clips by split over all data sets; of splits that have any."""
    counts: dict[str, int] = {}
    for source in _data(run):
        for split, count in _mapping(source, "rows").items():
            if isinstance(count, int) and count:
                counts[split] = counts.get(split, 0) + count
    return counts


def _progress(run: RunRecord, result: Record) -> dict[str, object]:
    last = max(record["step"] for record in (*run.steps, *run.epochs))
    if not result:
        return {"State": f"not ended; step {whole(last)} logged"}
    steps, best = result.get("steps"), result.get("best_step")
    stopped = str(result.get("stopped", ""))
    return {
        "Steps": whole(steps) if isinstance(steps, int) else None,
        "Epochs": result.get("epochs"),
        "Best checkpoint": f"step {whole(best)}" if isinstance(best, int) else None,
        "Ended because": _STOPPED.get(stopped, stopped),
    }


def _speed(run: RunRecord, result: Record) -> dict[str, object]:
    seconds, steps = result.get("wall_time_s"), result.get("steps")
    facts: dict[str, object] = {}
    if isinstance(seconds, int | float) and seconds > 0:
        facts["Wall time"] = duration(seconds)
        if isinstance(steps, int):
            facts["Steps per second"] = f"{steps / seconds:.3g} with validation"
    rates = [rate for record in run.steps if isinstance(rate := record.get("samples_per_s"), int | float)]
    if rates:
        facts["Clips per second"] = f"{median(rates):.3g} (median)"
    times = [time for record in (*run.steps, *run.epochs) if isinstance(time := record.get("time"), int | float)]
    if times:
        facts["Last written"] = f"{datetime.datetime.fromtimestamp(max(times), datetime.UTC):%Y-%m-%d %H:%M} UTC"
    return facts


def _objective(config: Record) -> str:
    if config.get("kind") == "none":
        return "student alone"
    off = [name for name in ("step1", "step2") if config.get(name) is False]
    weighting = str(config.get("weighting", "fixed"))
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


def _texts_cut(result: Record) -> str | None:
    """How many texts were longer than the student reads."""
    parts = []
    for split, counts in _mapping(result, "texts_cut").items():
        if isinstance(counts, Mapping) and counts.get("texts"):
            parts.append(f"{counts['cut']} of {counts['texts']} {SPLITS.get(split, split)} ({counts['share']:.1%})")
    return ", ".join(parts) or None


def _workers(workers: object) -> object:
    return "this process" if workers == 0 else workers


def _count(result: Record, part: str) -> str | None:
    count = _mapping(result, "parameters").get(part)
    return parameters(count) if isinstance(count, int) else None


def _data(run: RunRecord) -> list[Record]:
    data = (run.result or {}).get("data")
    return [source for source in data if isinstance(source, Mapping)] if isinstance(data, list) else []


def _mapping(record: Record, name: str) -> Mapping[str, object]:
    part = record.get(name)
    return part if isinstance(part, Mapping) else {}
