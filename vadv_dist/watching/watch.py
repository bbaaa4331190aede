"""`vadv watch`: follow a run through its metrics.jsonl, on disk or in an object store."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from vadv_dist.errors import MachineError
from vadv_dist.evaluation.description import Metric, TaskDescription
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.history import RunHistory, data_read
from vadv_dist.runs.records import RATES, Line
from vadv_dist.runtime.terminal import duration
from vadv_dist.watching.progress import MetricsTail, ProgressView, shown

# Time between two updates: each looks for result.json, which is a request to an object store.
_INTERVAL_S = 1.0
# An incomplete run without a line for this long is reported as silent.
_SILENT_S = 300.0
_EPOCHS = 8  # fit a terminal of 24 lines with the rest


def state_of(run: str) -> dict[str, Any]:
    """Return the state of a run as plain values; see `snapshot`.

    Raises:
        UserError: there is no such run.
    """
    folder = RunFolder.open(run)
    history = RunHistory()
    MetricsTail(folder.metrics_path, history).poll()
    return snapshot(folder, history)


def watch(run: str, console: Console, *, once: bool = False, sleep: Callable[[float], None] = time.sleep) -> None:
    """Show a run until it is complete: a table that is redrawn in a terminal, elsewhere a table and then plain lines.

    Args:
        run: folder or s3:// prefix of the run.
        console: the output.
        once: print the table once and return.
        sleep: waits between updates.
    Raises:
        UserError: there is no such run.
        MachineError: the run has stopped because its loss became NaN or infinity.
    """
    folder = RunFolder.open(run)
    history = RunHistory()
    plain: ProgressView | None = None

    def show(line: Line) -> None:
        history(line)
        if plain is not None:
            plain(line)

    def table() -> Group:
        return render(snapshot(folder, history), history.task)

    def has_ended() -> bool:
        return history.fault is not None or folder.result_path.is_file()

    tail = MetricsTail(folder.metrics_path, show)
    tail.poll()
    interval_s = max(tail.interval_s, _INTERVAL_S)
    if once:
        console.print(table())
        return
    if console.is_terminal:
        from rich.live import Live

        with Live(table(), console=console, auto_refresh=False) as live:
            while not has_ended():
                sleep(interval_s)
                tail.poll()
                live.update(table(), refresh=True)
    else:
        console.print(table())
        if not has_ended():
            while not has_ended():
                if plain is None and history.num_steps is not None:
                    plain = ProgressView(console, history.num_steps, history.epochs or 0, history.task)
                sleep(interval_s)
                tail.poll()
            console.print(table())
    if history.fault is not None:
        raise MachineError(
            f"{folder.root} stopped at step {history.fault.step}: {history.fault.what}. See the messages of its own "
            "process."
        )


def snapshot(folder: RunFolder, history: RunHistory) -> dict[str, Any]:
    """The state of a run as plain values; unknown values are None."""
    line = history.last_step
    last_epoch = history.epoch_lines[-1] if history.epoch_lines else None
    began, ended = history.first_time, history.last_time
    complete = folder.result_path.is_file()
    silent_s = None if ended is None else max(0.0, time.time() - ended)
    if complete:
        state = "complete"
    elif history.fault is not None:
        state = f"stopped: {history.fault.what}"
    elif silent_s is None:
        state = "no line yet"
    else:
        state = "silent" if silent_s > _SILENT_S else "running"
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
        "restarts_by_cause": dict(history.restarts_by_cause),
        "preemptions": history.preemptions,
        "goodput": history.goodput,
        "elapsed_s": None if began is None or ended is None else ended - began,
        "left_s": 0.0 if complete else history.seconds_left,
        "terms": {n: v for n, v in line.terms.items() if v is not None} if line is not None else {},
        "weights": dict(line.weights) if line is not None else {},
        "distillation": last_epoch.distillation if last_epoch is not None else None,
        "epoch_terms": dict(last_epoch.train) if last_epoch is not None else {},
        "rates": line.rates if line is not None else dict.fromkeys(RATES),
        "data_wait_ratio": history.wait_ratio,
        "checkpoint_blocked_s": history.blocked_s,
        "compute_ratios": history.compute_ratios,
        "slowest_rank": None if (slowest := history.slowest_rank) is None else slowest._asdict(),
        "node_bytes": history.node_bytes,
        "absent": history.absent,
        "remarks": list(last_epoch.remarks) if last_epoch is not None else [],
        "validation": [
            {"epoch": e.epoch, "step": e.step, "best": e.best, "models": e.validation, "sources": e.sources}
            for e in history.epoch_lines
        ],
    }


def render(found: Mapping[str, Any], task: TaskDescription | None) -> Group:
    """Render a `snapshot` within 80 columns, with the `task` from the run's lines."""
    parts: list[Any] = [Text(f"{found['folder']}: {found['state']}", style="bold"), Text(_position(found))]
    if found["state"] == "silent":
        text = f"no line for {duration(found['silent_s'])}: the run is waiting, or its process has ended"
        parts.append(Text(text, style="yellow"))
    if found["terms"] and task is not None:
        parts += [_terms(found, task), Text(_rates(found)), Text(_shares(found))]
        parts += [Text(ranks)] if (ranks := _ranks(found)) else []
    if found["validation"] and task is not None:
        parts.append(_validation(found, task))
        by_reason: dict[str, list[str]] = {}
        for key, reason in found["absent"].items():
            by_reason.setdefault(reason, []).append(key)
        parts += [Text(f"no {', '.join(keys)}: {reason}", style="dim") for reason, keys in by_reason.items()]
        parts += [Text(remark, style="yellow") for remark in found["remarks"]]
    return Group(*parts)


def _position(found: Mapping[str, Any]) -> str:
    steps, epochs = found["steps"], found["epochs"]
    share = f" ({found['step'] / steps:.0%})" if steps else ""
    epoch = min(found["epoch"] + 1, epochs or found["epoch"] + 1)
    parts = [f"step {found['step']}/{steps or '?'}{share}", f"epoch {epoch}/{epochs or '?'}"]
    parts.append(f"{duration(found['elapsed_s'])} so far")
    if found["state"] in ("running", "silent"):
        parts.append(f"{duration(found['left_s'])} left")
    if found["restarts"]:
        causes = ", ".join(f"{cause} {number}" for cause, number in found["restarts_by_cause"].items())
        parts.append(f"{found['restarts']} restart{'s' if found['restarts'] > 1 else ''} ({causes})")
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
        term = task.term(name)
        weight = term.weight
        if name in found["weights"]:
            weight = _number(found["weights"][name])
        elif term.distils and found["distillation"] is not None:
            weight = f"{weight} × {found['distillation']:.2f}"
        table.add_row(
            name.replace("_", " "),
            weight,
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
        parts.append(f"learning rate {rates['lr']:.2e}")
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


def _ranks(found: Mapping[str, Any]) -> str:
    parts = []
    if found["slowest_rank"] is not None:
        parts.append("slowest rank {rank}, {ratio:.2f} × the others".format(**found["slowest_rank"]))
    if read := data_read(found["node_bytes"]):
        parts.append(f"read {read}")
    return ", ".join(parts)


def _validation(found: Mapping[str, Any], task: TaskDescription) -> Table:
    rows, student, score = found["validation"][-_EPOCHS:], task.student.name, task.score_metric
    names = [output.name for output in task.outputs if any(output.name in row["models"] for row in rows)]
    keys = {name: {key for row in rows for key in row["models"].get(name, {})} for name in names}
    # An output without the task's score is shown by its own first metric.
    outputs = {name: task.first_metric(keys[name]) for name in names}
    titles = [name if metric == score else f"{name} {metric.title.lower()}" for name, metric in outputs.items()]
    sources = sorted({source for row in rows for source in row["sources"]})[:3]
    # Another metric of the student, not the score in one direction.
    others = [metric for metric in task.metrics if metric.name != score.name and metric.key in keys.get(student, ())][
        :1
    ]
    table = _table(f"validation {score.title}", "step", *titles, *sources, *(metric.key for metric in others), "")
    for row in rows:
        models = row["models"]
        table.add_row(
            f"epoch {row['epoch'] + 1}",
            str(row["step"]),
            *(_score(models.get(name, {}), metric) for name, metric in outputs.items()),
            *(_score(row["sources"].get(source, {}).get(student, {}), score) for source in sources),
            *(_score(models.get(student, {}), metric) for metric in others),
            "best" if row["best"] else "",
        )
    return table


def _score(values: Mapping[str, float | None], metric: Metric) -> str:
    return shown(values.get(metric.key), metric).replace("–", "-")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}" if abs(value) < 1e-3 and value else f"{value:.3f}"
