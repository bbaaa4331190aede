"""An exported retrieval student scored on other data: as in its run, or refused with one message."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from vadv_dist.cli.command import main
from vadv_dist.config import load_config
from vadv_dist.data.schema import Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.errors import UserError
from vadv_dist.inference.export import export_run
from vadv_dist.launch.driver import train
from vadv_dist.runs.folder import RunFolder
from vadv_dist.training.evaluate import evaluate_run
from vadv_dist.training.evaluate_other_data import evaluate


@pytest.fixture
def export(write_retrieval_config, tmp_path: Path) -> tuple[Path, Path]:
    """A run and its export."""
    config = load_config(write_retrieval_config(), ["--trainer.epochs=1"])
    train(config, Console(quiet=True))
    export_run(RunFolder.of(config).root, tmp_path / "export")
    return Path(str(RunFolder.of(config).root)), tmp_path / "export"


def write_dataset(place: Path, audio: int, *, label: LabelSpec, visual: bool = True) -> str:
    features = {"audio": FeatureSpec((audio,), "float32")}
    if visual:
        features["visual"] = FeatureSpec((1, 1, 8), "float32")
    with DatasetWriter(place, features=features, label=label, provenance={}) as writer:
        for i in range(4):
            values = {name: np.ones(spec.shape, np.float32) for name, spec in features.items()}
            writer.write("test", Clip(f"x{i}", f"v{i}", "words", float(i % 2), "made", values))
    return str(place)


def test_an_export_scores_as_its_run(export, events: Path, capsys) -> None:
    run, folder = export
    own = evaluate_run(run, "test").metrics["student"]
    found = evaluate(folder, "test", data=[str(events)]).metrics["student"]
    assert {key: found[key] for key in found} == pytest.approx({key: own[key] for key in found}, abs=1e-6)
    assert found["map"] > 0.2
    assert main(["evaluate", str(folder), "--data", str(events)]) == 0
    assert f"{found['map']:.3f}" in capsys.readouterr().out


def test_other_data_sets_are_refused_by_name(export, tmp_path: Path, capsys) -> None:
    _, folder = export
    classes, numbers = LabelSpec(0, 1, kind="class"), LabelSpec(-3, 3)
    cases = {
        "has labels that are numbers, but the student": write_dataset(tmp_path / "numbers", 12, label=numbers),
        "has audio features of width 12, but the student": write_dataset(tmp_path / "wide", 12, label=classes),
        "has no visual features, which the student": write_dataset(tmp_path / "a", 6, label=classes, visual=False),
    }
    for message, data in cases.items():
        with pytest.raises(UserError, match=message):
            evaluate(folder, "test", data=[data])
    assert main(["predict", str(folder), "--text", "words"]) == 2
    assert (
        "is a student of retrieval, which reads audio and visual vectors. Use `vadv retrieve`"
        in capsys.readouterr().err
    )
