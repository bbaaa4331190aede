"""The table of `vadv watch`: where a run stands, its loss terms and rates, and validation by epoch."""

import time
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from vadv_dist.runs.folder import RunFolder
from vadv_dist.watching.history import RATES, RunHistory, loss_terms

# Without a line for so long, a run that is not complete is said to be silent.
_SILENT_S = 300.0
_EPOCHS = 8  # as many fit a terminal of 24 lines beside the rest

_WEIGHTS = {
    "video_regression": "alpha",
    "text_regression": "beta",
    "video_classification": "gamma",
    "prompt_to_video": "delta",
    "video_to_text": "psi",
}


def snapshot(folder: RunFolder, history: RunHistory) -> dict[str, Any]:
    """How a run stands, as plain values; a value that no line tells is None."""
    line = history.last_step or {}
    complete = folder.result_path.is_file()
    silent_s = None if history.last_time is None else max(0.0, time.time() - history.last_time)
    if complete:
        state = "complete"
    elif history.fault is not None:
        state = f"stopped: {history.fault['what']}"
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
        "terms": loss_terms(line),
        "weights": dict(line.get("weights", {})),
        "epoch_terms": dict(history.epoch_lines[-1]["train"]) if history.epoch_lines else {},
        "rates": {name: line.get(name) for name in RATES},
        "data_wait_ratio": history.wait_ratio,
        "checkpoint_blocked_s": history.blocked_s,
        "absent": history.absent,
        "remarks": list(history.epoch_lines[-1].get("remarks", [])) if history.epoch_lines else [],
        "validation": [
            {
                "epoch": epoch["epoch"],
                "step": epoch["step"],
                "best": bool(epoch.get("best")),
                "models": epoch["validation"],
                "sources": epoch.get("sources", {}),
            }
            for epoch in history.epoch_lines
        ],
    }


def render(found: Mapping[str, Any]) -> Group:
    """Draw what `snapshot` found, within 80 columns."""
    parts: list[Any] = [Text(f"{found['folder']}: {found['state']}", style="bold"), Text(_where(found))]
    if found["state"] == "silent":
        parts.append(
            Text(f"no line for {duration(found['silent_s'])}: it waits, or its process is gone", style="yellow")
        )
    if found["terms"]:
        parts += [_terms(found), Text(_rates(found)), Text(_shares(found))]
    if found["validation"]:
        parts.append(_validation(found))
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


def _terms(found: Mapping[str, Any]) -> Table:
    table = _table("loss term", "weight", "last line", "last epoch")
    ordered = sorted(
        found["terms"], key=lambda name: (name == "total", list(_WEIGHTS).index(name) if name in _WEIGHTS else 99)
    )
    for name in ordered:
        table.add_row(
            name.replace("_", " "),
            _number(found["weights"][name]) if name in found["weights"] else _WEIGHTS.get(name, ""),
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


def _validation(found: Mapping[str, Any]) -> Table:
    shown = found["validation"][-_EPOCHS:]
    readers = [name for name in ("student", "video", "prompt") if any(name in row["models"] for row in shown)]
    sources = sorted({source for row in shown for source in row["sources"]})[:3]
    table = _table("validation MAE", "step", *readers, *sources, "corr", "")
    for row in shown:
        models = row["models"]
        table.add_row(
            f"epoch {row['epoch'] + 1}",
            str(row["step"]),
            *(_number(models.get(name, {}).get("mae")) for name in readers),
            *(_number(row["sources"].get(source, {}).get("student", {}).get("mae")) for source in sources),
            _number(models.get("student", {}).get("corr")),
            "best" if row["best"] else "",
        )
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}" if abs(value) < 1e-3 and value else f"{value:.3f}"
