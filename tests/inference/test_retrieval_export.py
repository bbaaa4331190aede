"""Exports of retrieval students: the same embeddings without this package, in PyTorch and in ONNX."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from pairs import AUDIO, VISUAL, WIDTHS, export_small, make_pair, make_pair_card, random_vectors, unit_embeddings
from torch import nn

from vadv_dist.errors import UserError
from vadv_dist.inference.export import export_run
from vadv_dist.inference.manifest import resolve_student, verify_export
from vadv_dist.inference.onnx_file import run_onnx
from vadv_dist.inference.retrieval_export import export_pair, load_towers
from vadv_dist.inference.retrieve import PairStudent
from vadv_dist.inference.towers import config_text, towers_of
from vadv_dist.models.retrieval_towers import RetrievalTowers

# A machine with only torch, safetensors and the folder.
STRANGER = """
import sys
sys.modules["vadv_dist"] = None
folder = sys.argv[1]
sys.path.insert(0, folder)
import json, torch
from modeling_retrieval_student import RetrievalTowers
audio, visual = (torch.tensor(values) for values in json.loads(sys.argv[2]))
model = RetrievalTowers.load(folder)
with torch.no_grad():
    print(json.dumps([side.tolist() for side in model(audio, visual)]))
"""


def test_torch_alone_gives_the_students_embeddings(pair_export):
    audio, visual = random_vectors(4, AUDIO), random_vectors(7, VISUAL, seed=1)
    vectors = json.dumps([audio.tolist(), visual.tolist()])
    done = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, str(pair_export), vectors],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = unit_embeddings(make_pair(), audio, visual)
    for found, wanted in zip(json.loads(done.stdout.splitlines()[-1]), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 2, 300])
def test_loaded_towers_embed_any_number_of_rows(pair_export, rows):
    student = make_pair()
    towers, manifest = load_towers(pair_export)
    audio, visual = random_vectors(rows, AUDIO), random_vectors(rows, VISUAL, seed=1)
    with torch.no_grad():
        found = towers(torch.from_numpy(audio), torch.from_numpy(visual))
    for mine, wanted in zip(found, unit_embeddings(student, audio, visual), strict=True):
        np.testing.assert_allclose(mine.numpy(), wanted, atol=1e-5)
    assert manifest.widths == {**WIDTHS, "embedding": 11}
    assert manifest.card.metrics == {"valid": {"map": 0.75, "map_class": None}}


def test_onnx_gives_the_students_embeddings(tmp_path):
    student = make_pair()
    folder = export_small(tmp_path / "onnx", student, format="onnx")
    audio, visual = random_vectors(11, AUDIO), random_vectors(11, VISUAL, seed=1)
    expected = unit_embeddings(student, audio, visual)
    for name, values, wanted in (("audio", audio, expected[0]), ("visual", visual, expected[1])):
        found = run_onnx(folder / f"{name}.onnx", {name: values}, "embedding")
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    card = (folder / "README.md").read_text()
    assert 'onnxruntime.InferenceSession("audio.onnx")' in card
    with pytest.raises(UserError, match=r"is an export for other programs \(onnx\), which this command does not load"):
        load_towers(folder)
    pair = PairStudent.load(folder)
    assert pair.manifest.widths == {**WIDTHS, "embedding": expected[0].shape[1]}
    np.testing.assert_allclose(pair.embed("audio", audio), expected[0], atol=1e-5)
    np.testing.assert_allclose(pair.embed("visual", visual), expected[1], atol=1e-5)


def test_exporting_an_export_gives_the_same_model(pair_export, tmp_path):
    first = pair_export
    summary = export_run(first, tmp_path / "second")
    assert str(summary) == f"{tmp_path / 'second'} (two towers, can be loaded by torch)"
    for name in ("config.json", "model.safetensors", "README.md"):
        assert (tmp_path / "second" / name).read_bytes() == (first / name).read_bytes()
    export_run(first, tmp_path / "third", format="onnx")
    assert (tmp_path / "third" / "visual.onnx").is_file()


def test_a_runs_evaluations_are_in_the_card(pair_export, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(pair_export, run / "student")
    (run / "config.yaml").write_text("run: {name: pair}\n")
    (run / "result.json").write_text(json.dumps({"best_step": 7}))
    for split, step in (("test", 7), ("train", 3)):
        document = {"split": split, "step": step, "student": {"map": 0.5, "map_a2v": 0.25}}
        (run / f"evaluation-{split}.json").write_text(json.dumps(document))
    export_run(run, tmp_path / "export")
    card = (tmp_path / "export" / "README.md").read_text()
    assert "| split | mAP | mAP a→v | class mAP |" in card
    assert "| valid | 0.7500 | – | – |" in card
    assert "| test | 0.5000 | 0.2500 | – |" in card
    assert "| train" not in card


def test_an_export_is_never_overwritten(pair_export):
    with pytest.raises(UserError, match="already exists"):
        export_run(pair_export, pair_export)


def test_a_changed_file_is_refused(pair_export, tmp_path):
    folder = shutil.copytree(pair_export, tmp_path / "export")
    (folder / "config.json").write_text((folder / "config.json").read_text().replace("relu", "tanh"))
    with pytest.raises(UserError, match="damaged or was changed"):
        load_towers(folder)


def test_students_of_the_other_task_are_named(pair_export, export):
    with pytest.raises(UserError, match=r"pair is a student of retrieval, .* Use `vadv retrieve`"):
        verify_export(resolve_student(pair_export))
    with pytest.raises(UserError, match=r"export is a student of sentiment, .* Use `vadv predict`"):
        load_towers(export)


class Layers(nn.Module):
    """A pair of towers whose layers the students of the paper may not have."""

    def __init__(self) -> None:
        super().__init__()
        self.audio = nn.Sequential(nn.Linear(AUDIO, 8), nn.BatchNorm1d(8), nn.GELU(approximate="tanh"), nn.Dropout(0.5))
        self.visual = nn.Sequential(nn.Linear(VISUAL, 8, bias=False), nn.LayerNorm(8), nn.LeakyReLU(0.2), nn.Softmax(1))

    def forward(self, audio, visual):
        return self.audio(audio), self.visual(visual)


def test_towers_are_those_of_any_module():
    torch.manual_seed(0)
    layers = Layers()
    layers.train()(torch.randn(20, AUDIO), torch.randn(20, VISUAL))  # running means
    layers.eval()
    towers = towers_of(layers, WIDTHS)
    audio, visual = torch.randn(5, AUDIO), torch.randn(5, VISUAL)
    with torch.no_grad():
        for found, wanted in zip(towers(audio, visual), layers(audio, visual), strict=True):
            torch.testing.assert_close(found, nn.functional.normalize(wanted, dim=-1), rtol=1e-5, atol=1e-6)
    assert json.loads(config_text(towers))["towers"] == towers.towers


def test_operations_outside_the_list_are_refused():
    class Noise(nn.Module):
        def forward(self, audio, visual):
            return audio + torch.rand_like(audio), visual

    with pytest.raises(TypeError, match=r"cannot hold the operation rand_like"):
        towers_of(Noise(), WIDTHS)
    tower = {"steps": [["step_0", "from_file.default", ["vectors"], {}]], "result": "step_0"}
    with pytest.raises(ValueError, match="is not an operation of a tower"):
        RetrievalTowers(tower, tower, {})


def test_replacing_keeps_one_export(tmp_path):
    export_small(tmp_path / "export")
    other = make_pair(seed=1)
    export_pair(towers_of(other, WIDTHS), WIDTHS, tmp_path / "export", card=make_pair_card(name="new"), replace=True)
    towers, manifest = load_towers(tmp_path / "export")
    assert manifest.card.name == "new"
    audio, visual = random_vectors(3, AUDIO), random_vectors(3, VISUAL)
    with torch.no_grad():
        found = towers(torch.from_numpy(audio), torch.from_numpy(visual))
    np.testing.assert_allclose(found[0].numpy(), unit_embeddings(other, audio, visual)[0], atol=1e-5)
