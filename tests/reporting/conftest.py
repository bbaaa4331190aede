import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from vadv_dist.config import config_from_dict, config_to_dict
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.evaluation.remarks import remarks, spread

TERMS = ("text_regression", "video_regression", "video_classification", "prompt_to_video", "video_to_text")
WORDS = ("the", "plot", "was", "slow", "but", "honestly", "I", "loved", "how", "every", "scene", "came", "together")
LOGITS = {"text_logit": "student", "video_logit": "video", "prompt_logit": "prompt"}


def write_metrics(folder: Path, *, teacher: bool, epochs: int, steps_per_epoch: int, rng: np.random.Generator) -> None:
    """A metrics.jsonl whose terms fall with noise, logged every fifth step."""
    lines, terms = [], TERMS if teacher else TERMS[:1]
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
            lines.append(record | {"data_wait_s": 0.001, "time": 1_760_000_000 + step})
        if step % steps_per_epoch == 0:
            readers = ("student", "video", "prompt") if teacher else ("student",)
            maes = {name: {"mae": 0.6 + 0.08 * i + 0.2 * fall, "corr": 0.7} for i, name in enumerate(readers)}
            train = {name: float(np.mean(part[-steps_per_epoch:])) for name, part in seen.items()}
            lines.append(
                {"kind": "epoch", "epoch": epoch, "step": step, "validation": maes, "train": train}
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

    def scores(kept: np.ndarray) -> dict[str, dict[str, float | None]]:
        result = {}
        for column, values in logits.items():
            answered = kept & np.isfinite(values)
            pair = np.asarray(values)[answered], np.asarray(rows["label"])[answered]
            metrics = scale.score(*pair) | spread(*pair, 0.2)
            result[LOGITS[column]] = {name: None if np.isnan(x) else x for name, x in metrics.items()}
        return result

    source = np.asarray(rows["source"])
    document = {"run": folder.name, "split": split, "step": 100, "data": []} | scores(np.ones(len(source), bool))
    document |= scale.describe(rows["label"]) | {"remarks": remarks(document)}
    document["sources"] = {str(name): scores(source == name) for name in np.unique(source)}
    (folder / f"evaluation-{split}.json").write_text(json.dumps(document), encoding="utf-8")


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
    raw = config_to_dict(config_from_dict({}))
    raw["run"]["name"] = folder.name
    raw["data"]["sources"] = [{"uri": "data/made", "weight": 1.0}]
    raw["student"]["encoder"] = "sentence-transformers/all-MiniLM-L6-v2"
    raw["objective"]["kind"] = "step" if teacher else "none"
    (folder / "config.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    write_metrics(folder, teacher=teacher, epochs=epochs, steps_per_epoch=steps_per_epoch, rng=rng)
    if ended:
        steps = epochs * steps_per_epoch
        result = {
            "run": folder.name,
            "best_step": steps,
            "best_epoch": epochs - 1,
            "validation": {"mae": 0.7},
            "steps": steps,
            "epochs": epochs,
            "wall_time_s": 95.0,
            "data": [
                {
                    "uri": "data/made",
                    "fingerprint": "5f0c" * 16,
                    "rows": data_rows or {"train": 2400, "valid": 300, "test": clips},
                }
            ],
            "parameters": {"teacher": 1_230_000 if teacher else 0, "student": 22_700_000},
            "versions": {"vadv": "0.1.0", "torch": "2.10.0", "ray": "2.56.0"},
            "stopped": "epochs",
            "engine": "deepspeed ZeRO-1",
            "workers": 2,
            "device": "cpu",
        }
        (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
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
