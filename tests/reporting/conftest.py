import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_lines import run_result

from vadv_dist.config import config_from_dict, config_to_yaml
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.evaluation.remarks import remarks, spread
from vadv_dist.objectives.step_distillation import TERMS as OBJECTIVE
from vadv_dist.runs.encoder_identity import EncoderIdentity
from vadv_dist.runs.records import Evaluation, Metrics, SourceScores, StartLine, finite
from vadv_dist.runs.trained_on import SourceIdentity, TrainedOn
from vadv_dist.tasks.sentiment import describe

DATA = {"uri": "data/made", "fingerprint": "5f0c" * 16}
TERMS = ("text_regression", "video_regression", "video_classification", "prompt_to_video", "video_to_text")
WORDS = ("the", "plot", "was", "slow", "but", "honestly", "I", "loved", "how", "every", "scene", "came", "together")


def write_metrics(
    folder: Path, *, teacher: bool, epochs: int, steps_per_epoch: int, rng: np.random.Generator, scale: LabelScale
) -> None:
    """A metrics.jsonl whose terms fall with noise, logged every fifth step."""
    terms = TERMS if teacher else TERMS[:1]
    described = tuple(term for term in OBJECTIVE if term.name in terms)
    task = describe(scale, described, video=teacher, prompt=teacher)
    start = StartLine(step=0, epoch=0, steps=1, epochs=epochs, workers=1, task=task, labels=scale, time=1.7e9)
    lines = [start.to_json()]
    seen: dict[str, list[float]] = {name: [] for name in (*terms, "total")}
    for step in range(1, epochs * steps_per_epoch + 1):
        epoch = (step - 1) // steps_per_epoch
        fall = 0.35 + 2.0 * np.exp(-3.5 * step / (epochs * steps_per_epoch))
        values = {
            name: float(fall * scale * rng.lognormal(0, 0.25))
            for name, scale in zip(terms, (1.0, 1.2, 0.4, 0.3 * fall**2, 0.5), strict=False)
        }
        values["total"] = sum(10 * values[name] if name == "text_regression" else values[name] for name in terms)
        for name, value in values.items():
            seen[name].append(value)
        record = {"kind": "step", "step": step, "epoch": epoch, **values, "lr": 5e-5 * (1 - step / 1e4)}
        record |= {"grad_norm": 1.0 + float(rng.random()), "samples_per_s": 100.0, "tokens_per_s": 1500.0}
        if step % 5 == 0:
            lines.append(record | {"data_wait_s": 0.001, "line_s": 0.5, "time": 1_760_000_000 + step})
        if step % steps_per_epoch == 0:
            readers = ("student", "video", "prompt") if teacher else ("student",)
            maes = {name: {"mae": 0.6 + 0.08 * i + 0.2 * fall, "corr": 0.7} for i, name in enumerate(readers)}
            train = {name: float(np.mean(part[-steps_per_epoch:])) for name, part in seen.items()}
            lines.append(
                {"kind": "epoch", "epoch": epoch, "step": step, "validation": maes, "train": train, "best": False}
                | {"seconds": 9.5, "time": 1_760_000_000 + step}
            )
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")


def write_evaluation(
    folder: Path, split: str, rows: dict[str, object], logits: dict[str, np.ndarray], scale: LabelScale
) -> None:
    """An evaluation and its predictions; `rows` holds the clips' own columns."""
    columns = rows | {name: np.asarray(values, np.float32) for name, values in logits.items()}
    pq.write_table(pa.table(columns), folder / f"predictions-{split}.parquet")

    task = describe(scale, video="video_logit" in logits, prompt="prompt_logit" in logits)

    def scores(kept: np.ndarray) -> Metrics:
        result = {}
        for output in task.outputs:
            answered = kept & np.isfinite(logits[output.column])
            pair = np.asarray(logits[output.column])[answered], np.asarray(rows["label"])[answered]
            result[output.name] = finite(scale.score(*pair) | spread(*pair, 0.2))
        return result

    source = np.asarray(rows["source"])
    metrics = scores(np.ones(len(source), bool))
    document = Evaluation(
        run=folder.name,
        split=split,
        step=100,
        rows=len(source),
        dropped=0,
        data=[DATA],
        texts_cut={},
        task=task,
        labels=scale,
        absent=scale.absent(rows["label"]),
        metrics=metrics,
        remarks=remarks(metrics, task.outputs),
        sources={
            str(name): SourceScores(rows=int((source == name).sum()), metrics=scores(source == name))
            for name in np.unique(source)
        },
    )
    (folder / f"evaluation-{split}.json").write_text(json.dumps(document.to_json()), encoding="utf-8")


def write_run(
    folder: Path,
    *,
    teacher: bool = True,
    split: str | None = "test",
    clips: int = 60,
    source: str = "synth",
    noise: float = 0.8,
    texts: list[str] | None = None,
    labels: list[float] | None = None,
    data_rows: dict[str, int] | None = None,
    epochs: int = 3,
    steps_per_epoch: int = 20,
    ended: bool = True,
    scale: LabelScale | None = None,
) -> Path:
    """A run's folder as training and evaluation leave it."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0 if teacher else 1)
    raw = {
        "run": {"name": folder.name},
        "data": {"sources": [{"uri": "data/made"}]},
        "student": {"encoder": "sentence-transformers/all-MiniLM-L6-v2"},
        "objective": {"kind": "step" if teacher else "none"},
    }
    (folder / "config.yaml").write_text(config_to_yaml(config_from_dict(raw)), encoding="utf-8")
    trained_on = TrainedOn(
        (SourceIdentity("data/made", DATA["fingerprint"], {}),), EncoderIdentity("encoder", None, None)
    )
    (folder / "trained-on.json").write_text(json.dumps(trained_on.to_json()), encoding="utf-8")
    write_metrics(
        folder, teacher=teacher, epochs=epochs, steps_per_epoch=steps_per_epoch, rng=rng, scale=scale or LabelScale()
    )
    if ended:
        steps = epochs * steps_per_epoch
        rows_by_split = data_rows or {"train": 2400, "valid": 300, "test": clips}
        result = run_result(
            {"mae": 0.7},
            run=folder.name,
            best_step=steps,
            best_epoch=epochs - 1,
            steps=steps,
            epochs=epochs,
            wall_time_s=95.0,
            data=[{**DATA, "place": "data/made", "rows": rows_by_split}],
            parameters={"teacher": 1_230_000 if teacher else 0, "student": 22_700_000},
            versions={"vadv": "0.2.0", "torch": "2.10.0", "ray": "2.56.0"},
            engine="deepspeed ZeRO-1",
            workers=2,
        )
        (folder / "result.json").write_text(json.dumps(result.to_json()), encoding="utf-8")
    if split is not None:
        shared = np.random.default_rng(7)
        label = np.asarray(labels if labels is not None else shared.integers(-15, 16, clips) / 5, np.float32)
        hard = shared.normal(0, 0.5, len(label))
        if texts is None:
            texts = [" ".join(shared.choice(WORDS, shared.integers(3, 16))) for _ in label]
        rows = {
            "clip_id": [f"video{i // 20:02d}_{i % 20}" for i in range(len(label))],
            "video_id": [f"video{i // 20:02d}" for i in range(len(label))],
            "source": [source] * len(label),
            "text": texts,
            "label": label,
        }
        logits = {"text_logit": 0.85 * label + hard + rng.normal(0, noise, len(label))}
        if teacher:
            logits["video_logit"] = 0.6 * label + hard + rng.normal(0, 0.7, len(label))
            logits["prompt_logit"] = np.tanh(label) * 0.9 + rng.normal(0, 0.5, len(label))
        write_evaluation(folder, split, rows, logits, scale or LabelScale())
    return folder


@pytest.fixture
def make_run(tmp_path):
    """Make a run's folder by name; further arguments are those of `write_run`."""
    return lambda name="taught", **arguments: write_run(tmp_path / name, **arguments)
