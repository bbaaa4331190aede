"""Models of MMSA train on our export; their predictions enter a study under our metrics, which equal MMSA's."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from vadv_dist.cli.command import main
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.sources import Sources
from vadv_dist.data.synth import make_dataset
from vadv_dist.storage import read_json
from vadv_dist.training.outside_predictions import score_predictions

THEIRS = {
    "mae": "MAE",
    "corr": "Corr",
    "a7": "Mult_acc_7",
    "a2_has0": "Has0_acc_2",
    "a2_non0": "Non0_acc_2",
    "f1_has0": "Has0_F1_score",
    "f1_non0": "Non0_F1_score",
}


@pytest.mark.long
@pytest.mark.slow
def test_lmf_and_tfn_train_on_an_export_and_their_predictions_are_scored(tmp_path: Path) -> None:
    for package in ("MMSA", "easydict", "pynvml"):
        pytest.importorskip(package)
    make_dataset(tmp_path / "data", num_clips=300, seed=1)
    assert main(["data-export", "mmsa", str(tmp_path / "data"), str(tmp_path / "made.pkl"), "--audio", "face"]) == 0
    script = Path(__file__).parents[2] / "benchmarks" / "mmsa_models.py"
    command = [sys.executable, script, tmp_path / "made.pkl", "--patience", "1", "--out", tmp_path / "predictions"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    sources = Sources([Dataset.open(tmp_path / "data")], (), (None,))
    for model in ("lmf", "tfn"):
        evaluation, _ = score_predictions(tmp_path / "predictions" / f"{model}-1.csv", sources, "test", name=model)
        ours = evaluation.metrics["student"]
        (line,) = re.findall(rf"^{model} seed 1, .*$", done.stdout, re.MULTILINE)
        for key, name in THEIRS.items():
            (value,) = re.findall(rf"\b{name} (-?[\d.]+)", line)
            assert ours[key] == pytest.approx(float(value), abs=2e-4), (model, key)
        for split in ("train", "valid"):
            score_predictions(tmp_path / "predictions" / f"{model}-1.csv", sources, split, name=model)

    (tmp_path / "rivals.yaml").write_text(
        "title: A student of text beside models that fuse modalities\nconfig: demo\nseeds: [1]\n"
        f"overrides: {{data.sources: [{{uri: {tmp_path / 'data'}}}], student.encoder: {tmp_path / 'data' / 'encoder'}, "
        f"trainer.num_workers: 0, trainer.max_steps: 1, run.storage: {tmp_path / 'runs'}}}\n"
        "variants:\n  text alone: {overrides: {objective: none}}\n"
        f"  LMF: {{predictions: '{tmp_path / 'predictions' / 'lmf-{seed}.csv'}'}}\n"
    )
    assert main(["study", str(tmp_path / "rivals.yaml"), "--no-ray"]) == 0
    study = read_json(tmp_path / "runs" / "rivals" / "study.json")
    (found,) = next(variant for variant in study["variants"] if variant["name"] == "LMF")["runs"]
    evaluation, _ = score_predictions(tmp_path / "predictions" / "lmf-1.csv", sources, "test", name="LMF")
    assert found["values"]["test"]["mae"] == pytest.approx(evaluation.metrics["student"]["mae"], abs=1e-6)
