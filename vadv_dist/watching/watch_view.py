"""The table of `vadv watch`: state, loss terms, throughput, and validation by epoch."""

import time
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from vadv_dist.evaluation.description import TaskDescription
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import RATES
from vadv_dist.watching.history import RunHistory

# Without a line for so long, a run that is not complete is said to be silent.
_SILENT_S = 300.0
_EPOCHS = 8  # as many fit a terminal of 24 lines beside the rest


def snapshot(folder: RunFolder, history: RunHistory) -> dict[str, Any]:
    """The state of a run as plain values; unknown values are None."""
    line = history.last_step
    last_epoch = history.epoch_lines[-1] if history.epoch_lines else None
    complete = folder.result_path.is_file()
    silent_s = None if history.last_time is None else max(0.0, time.time() - history.last_time)
    if complete:
        state = "complete"
    elif history.fault is not None:
        state = f"stopped: {history.fault.what}"
    elif history.last_time is None:
        state = "no line yet"
    elif silent_s is not None and silent_s > _SILENT_S:
        state = "silent"
    else:
        state = "running"
    began, ended = history.first_time, history.last_time
    return {
        "run": folder.root.name,
        "folder": str(folder.root),
        "state": state,
        "silent_s": None if complete else silent_s,
        "step": history.step,
        "steps": history.num_steps,
        "epoch": history.epoch,
        "epochs": history.epochs,
        "workers": history.workers,
        "restarts": history.restarts,
        "goodput": history.goodput,
        "elapsed_s": None if began is None or ended is None else ended - began,
        "left_s": 0.0 if complete else history.seconds_left,
        "terms": {n: v for n, v in line.terms.items() if v is not None} if line is not None else {},
        "weights": dict(line.weights) if line is not None else {},
        "epoch_terms": dict(last_epoch.train) if last_epoch is not None else {},
        "rates": line.rates if line is not None else dict.fromkeys(RATES),
        "data_wait_ratio": history.wait_ratio,
        "checkpoint_blocked_s": history.blocked_s,
        "absent": history.absent,
        "remarks": list(last_epoch.remarks) if last_epoch is not None else [],
        "validation": [
            {
                "epoch": epoch.epoch,
                "step": epoch.step,
                "best": epoch.best,
                "models": epoch.validation,
                "sources": epoch.sources,
            }
            for epoch in history.epoch_lines
        ],
    }


def render(found: Mapping[str, Any], task: TaskDescription | None) -> Group:
    """Render a `snapshot` within 80 columns, with the `task` from the run's lines."""
    parts: list[Any] = [Text(f"{found['folder']}: {found['state']}", style="bold"), Text(_where(found))]
    if found["state"] == "silent":
        parts.append(
            Text(f"no line for {duration(found['silent_s'])}: it waits, or its process is gone", style="yellow")
        )
    if found["terms"] and task is not None:
        parts += [_terms(found, task), Text(_rates(found)), Text(_shares(found))]
    if found["validation"] and task is not None:
        parts.append(_validation(found, task))
        by_reason: dict[str, list[str]] = {}
        for key, reason in found["absent"].items():
            by_reason.setdefault(reason, []).append(key)
        parts += [Text(f"no {', '.join(keys)}: {reason}", style="dim") for reason, keys in by_reason.items()]
        parts += [Text(remark, style="yellow") for remark in found["remarks"]]
    return Group(*parts)


def duration(seconds: float | None) -> str:
    """Seconds as a person reads them: 42 s, 3 min 05 s, 2 h 07 min, 3 d 04 h."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02} h"


def _where(found: Mapping[str, Any]) -> str:
    steps, epochs = found["steps"], found["epochs"]
    share = f" ({found['step'] / steps:.0%})" if steps else ""
    epoch = min(found["epoch"] + 1, epochs or found["epoch"] + 1)
    parts = [f"step {found['step']}/{steps or '?'}{share}", f"epoch {epoch}/{epochs or '?'}"]
    parts.append(f"{duration(found['elapsed_s'])} so far")
    if found["state"] in ("running", "silent"):
        parts.append(f"{duration(found['left_s'])} left")
    if found["restarts"]:
        parts.append(f"{found['restarts']} restart{'s' if found['restarts'] > 1 else ''}")
    return ", ".join(parts)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    return table


def _terms(found: Mapping[str, Any], task: TaskDescription) -> Table:
    table = _table("loss term", "weight", "last line", "last epoch")
    described = [term.name for term in task.terms if term.name in found["terms"]]
    others = sorted(found["terms"].keys() - set(described), key=lambda name: (name == "total", name))
    for name in (*described, *others):
        table.add_row(
            name.replace("_", " "),
            _number(found["weights"][name]) if name in found["weights"] else task.term(name).weight,
            _number(found["terms"][name]),
            _number(found["epoch_terms"].get(name)),
        )
    return table


def _rates(found: Mapping[str, Any]) -> str:
    rates = found["rates"]
    parts = []
    for key, unit in (("samples_per_s", "clips/s"), ("tokens_per_s", "tokens/s")):
        if rates[key] is not None:
            parts.append(f"{rates[key]:,.1f} {unit}" if rates[key] < 100 else f"{rates[key]:,.0f} {unit}")
    if rates["lr"] is not None:
        parts.append(f"rate {rates['lr']:.2e}")
    if rates["grad_norm"] is not None:
        parts.append(f"gradient norm {rates['grad_norm']:.3g}")
    return ", ".join(parts)


def _shares(found: Mapping[str, Any]) -> str:
    rates = found["rates"]
    parts = []
    if rates["mfu"] is not None:
        parts.append(f"{rates['mfu']:.1%} of peak FLOP")
    if rates["gpu_memory_bytes"] is not None:
        parts.append(f"{rates['gpu_memory_bytes'] / 2**30:.1f} GiB on the GPU")
    if found["data_wait_ratio"] is not None:
        parts.append(f"waiting for data {found['data_wait_ratio']:.1%}")
    if found["checkpoint_blocked_s"]:
        parts.append(f"checkpoints {duration(found['checkpoint_blocked_s'])}")
    if found["goodput"] is not None:
        parts.append(f"goodput {found['goodput']:.0%}")
    return ", ".join(parts)


def _validation(found: Mapping[str, Any], task: TaskDescription) -> Table:
    shown, student, score = found["validation"][-_EPOCHS:], task.student.name, task.score
    outputs = [output.name for output in task.outputs if any(output.name in row["models"] for row in shown)]
    sources = sorted({source for row in shown for source in row["sources"]})[:3]
    second = next((metric for metric in task.metrics if metric.key != score), None)
    others = [] if second is None else [second.key]
    table = _table(f"validation {task.score_metric.title}", "step", *outputs, *sources, *others, "")
    for row in shown:
        models = row["models"]
        table.add_row(
            f"epoch {row['epoch'] + 1}",
            str(row["step"]),
            *(_number(models.get(name, {}).get(score)) for name in outputs),
            *(_number(row["sources"].get(source, {}).get(student, {}).get(score)) for source in sources),
            *(_number(models.get(student, {}).get(key)) for key in others),
            "best" if row["best"] else "",
        )
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}" if abs(value) < 1e-3 and value else f"{value:.3f}"
