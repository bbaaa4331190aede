"""The command line: results, error messages, and no partial files after an error."""

import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from vadv_dist.cli import main
from vadv_dist.cli.command import build_parser
from vadv_dist.data.synth import GenerativeModel, RetrievalModel
from vadv_dist.storage import read_json


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def mistake(capsys, *arguments: object) -> str:
    """Run a command that must fail with a user error, one message and no traceback."""
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("vadv: ")
    assert "Traceback" not in err
    return err


@pytest.fixture(scope="module")
def trained(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small, complete run, evaluated on its test split."""
    folder = tmp_path_factory.mktemp("trained")
    config = folder / "run.yaml"
    config.write_text(
        f"""
run: {{name: small, storage: {folder}, seed: 5}}
data: {{sources: [{{uri: {made}}}], batch_size: 16}}
teacher: {{width: 16, heads: 2, hidden: 16}}
student: {{encoder: {made / "encoder"}, pretrained: false, hidden: 32}}
optimizer: {{lr: 1.0e-3, new_module_lr_factor: 1.0}}
trainer: {{epochs: 2, use_gpu: false}}
"""
    )
    assert main(["train", "--config", str(config)]) == 0
    assert main(["evaluate", str(folder / "small"), "--split", "test"]) == 0
    return folder / "small"


def test_help_is_fast_and_imports_no_heavy_module() -> None:
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "vadv_dist.cli", "--help"], capture_output=True, text=True)
    seconds = time.perf_counter() - began
    assert done.returncode == 0
    for command in ("synth", "ingest", "data-info", "data-check", "train", "recipes", "evaluate", "predict", "export"):
        assert command in done.stdout
    heavy = {"torch", "ray", "pyarrow", "numpy", "rich", "pydantic"}
    probe = f"import sys, vadv_dist.cli; print(sorted({heavy} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert loaded.stdout.strip() == "[]"
    assert seconds < 5  # 0.05 s on an idle machine, as long as the modules above are not imported


def test_synth_info_and_check_agree(capsys, tmp_path: Path) -> None:
    assert run(capsys, "synth", tmp_path / "data", "--num-clips", 60, "--seed", 4)[0] == 0
    code, out, _ = run(capsys, "data-info", tmp_path / "data", "--json")
    assert code == 0
    assert sum(split["rows"] for split in json.loads(out)["splits"].values()) == 60
    code, out, _ = run(capsys, "data-check", tmp_path / "data")
    assert code == 0
    path = next((tmp_path / "data" / "train").glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-10])
    code, out, _ = run(capsys, "data-check", tmp_path / "data")
    assert code == 2
    assert "train/00000.parquet" in out


def test_synth_accepts_annotator_and_video_noise(capsys, tmp_path: Path) -> None:
    noise = ("--annotator-noise", 1.5, "--video-noise", 6)
    assert run(capsys, "synth", tmp_path / "data", "--num-clips", 60, *noise)[0] == 0
    parameters = read_json(tmp_path / "data" / "dataset.json")["truth"]["parameters"]
    assert (parameters["s_annot"], parameters["s_video"]) == (1.5, 6)
    assert "--annotator-noise) is 0.0" in mistake(capsys, "synth", tmp_path / "no", "--annotator-noise", 0)
    assert "--video-noise) is inf" in mistake(capsys, "synth", tmp_path / "no", "--video-noise", "inf")
    assert not (tmp_path / "no").exists()
    with pytest.raises(SystemExit):
        main(["synth", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for default in (GenerativeModel.s_annot, GenerativeModel.s_video):
        assert f"(default: {default}" in said


@pytest.mark.parametrize(
    ("command", "field"),
    [("train", "--trainer.epochs="), ("tune", "--search.num_trials="), ("extract", "--image.encoder=")],
)
def test_help_lists_fields_as_they_are_set(capsys, command: str, field: str) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert f"    {field}" in capsys.readouterr().out


def test_synth_for_retrieval_passes_its_options_on_and_refuses_those_of_sentiment(capsys, tmp_path: Path) -> None:
    given = {
        "--classes": 3,
        "--label-noise": 0.1,
        "--audio-noise": 0.2,
        "--visual-noise": 0.25,
        "--audio-width": 20,
        "--visual-width": 24,
        "--frames": 4,
    }
    options = [part for option in given.items() for part in option]
    made = ("synth", tmp_path / "data", "--task", "retrieval", "--num-clips", 60, *options, "--uninformative-video")
    assert run(capsys, *made)[0] == 0
    parameters = read_json(tmp_path / "data" / "dataset.json")["truth"]["parameters"]
    model = RetrievalModel(
        num_classes=3,
        informative_video=False,
        label_noise=0.1,
        s_audio=0.2,
        s_visual=0.25,
        audio_width=20,
        visual_width=24,
        frames=4,
    )
    assert parameters == asdict(model)
    assert run(capsys, "data-check", tmp_path / "data")[0] == 0
    no = ("synth", tmp_path / "no")
    assert "--video-noise belongs to --task sentiment, but the task is retrieval" in mistake(
        capsys, *no, "--task", "retrieval", "--video-noise", 1
    )
    assert "--label-noise belongs to --task retrieval, but the task is sentiment" in mistake(
        capsys, *no, "--label-noise", 0.1
    )
    assert "unknown task 'retreival'" in mistake(capsys, *no, "--task", "retreival")
    assert not (tmp_path / "no").exists()
    with pytest.raises(SystemExit):
        main(["synth", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert f"retrieval: default {RetrievalModel.num_classes}, as in VEGAS" in said
    for name in ("label_noise", "s_audio", "s_visual", "audio_width", "visual_width", "frames"):
        assert f"(default: {getattr(RetrievalModel, name)}" in said


def test_evaluate_export_predict_and_report_of_a_run(capsys, trained: Path, tmp_path: Path) -> None:
    code, out, _ = run(capsys, "evaluate", trained, "--split", "valid", "--json")
    document = json.loads(out)
    assert code == 0
    assert {"mae", "corr", "a7", "a2_has0", "a2_non0", "f1_has0", "f1_non0"} <= document["student"].keys()
    assert {"student", "video", "prompt", "sources"} <= document.keys()
    assert document["student"]["mae"] == pytest.approx(
        read_json(trained / "result.json")["validation"]["mae"], rel=1e-5
    )
    assert (trained / "evaluation-valid.json").is_file()
    assert (trained / "predictions-valid.parquet").is_file()

    code, out, _ = run(capsys, "evaluate", trained)
    assert code == 0
    assert "MAE" in out

    code, out, _ = run(capsys, "export", trained, "--out", tmp_path / "export")
    assert code == 0
    code, out, _ = run(capsys, "predict", tmp_path / "export", "--text", "i loved the film", "--json")
    exported = json.loads(out)[0]["prediction"]
    code, out, _ = run(capsys, "predict", trained, "--text", "i loved the film", "--json")
    assert json.loads(out)[0]["prediction"] == pytest.approx(exported, abs=1e-6)
    code, out, _ = run(
        capsys, "predict", tmp_path / "export", "--text", "i loved the film", "--interval", "0.8", "--json"
    )
    ends = [json.loads(out)[0][name] for name in ("prediction_low", "prediction_high")]
    errors = pq.read_table(trained / "validation-errors.parquet")["error"].to_numpy()
    width = np.sort(errors)[math.ceil(0.8 * (len(errors) + 1)) - 1]
    assert ends == pytest.approx([exported - width, exported + width], abs=1e-5)

    (tmp_path / "in.csv").write_text("id,text\n007,i loved the film\n8,it was awful\n")
    code, out, _ = run(capsys, "predict", trained, "--input", tmp_path / "in.csv", "--output", tmp_path / "out.csv")
    assert code == 0
    rows = (tmp_path / "out.csv").read_text().splitlines()
    assert rows[0].replace('"', "") == "id,text,prediction"
    assert rows[1].replace('"', "").startswith("007,")

    code, out, _ = run(capsys, "report", trained)
    assert code == 0
    assert (trained / "report.html").is_file()


@pytest.mark.parametrize("has_test", [True, False])
def test_what_train_names_as_next_works(capsys, made: Path, write_config, tmp_path: Path, has_test: bool) -> None:
    data = tmp_path / "my data"
    shutil.copytree(made, data)
    manifest = json.loads((data / "dataset.json").read_text())
    if not has_test:
        del manifest["splits"]["test"]
        (data / "dataset.json").write_text(json.dumps(manifest))
    config = write_config(uri=f'"{data}"', storage=f'"{tmp_path / "my runs"}"')
    code, out, _ = run(capsys, "train", "--config", config, "--trainer.epochs=1")
    assert code == 0
    [line] = [line for line in out.splitlines() if line.startswith("next: ")]
    for command in line.removeprefix("next: ").split("; "):
        assert main(shlex.split(command)[1:]) == 0, command


def test_a_run_configured_for_gpus_can_be_evaluated_on_cpu(capsys, trained: Path, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    moved = tmp_path / "moved"
    shutil.copytree(trained, moved)
    config = moved / "config.yaml"
    config.write_text(config.read_text().replace("use_gpu: false", "use_gpu: true"))
    code, out, _ = run(capsys, "evaluate", moved, "--json")
    assert code == 0
    assert json.loads(out)["student"] == read_json(trained / "evaluation-test.json")["student"]


def test_train_prints_its_config_and_a_json_result(capsys, write_config) -> None:
    code, out, _ = run(capsys, "train", "--config", write_config(), "--print_config", "--trainer.epochs=7")
    assert code == 0
    assert "epochs: 7" in out
    code, out, err = run(capsys, "train", "--config", write_config(), "--json", "--trainer.max_steps=2")
    assert json.loads(out)["steps"] == 2
    assert "validation MAE" in err


def test_override_values_as_separate_arguments_and_paths_with_tilde(
    capsys, write_config, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_config()
    fields = [
        "--optimizer.clip_norm",
        "null",
        "--trainer.epochs",
        "7",
        "--run.storage",
        "~/runs",
        "--run.name",
        "-hidden",
    ]
    code, out, _ = run(capsys, "train", *fields, "--config", "~/run.yaml", "--print_config")
    assert code == 0
    for line in ("clip_norm: null", "epochs: 7", f"storage: {tmp_path}/runs", "name: -hidden"):
        assert line in out
    said = mistake(capsys, "train", "--config", "~/run.yaml", "--objective.alpha", "-1e-3")
    assert "objective.alpha is -0.001, expected a number of at least 0" in said
    assert "--trainer.epochs has no value" in mistake(capsys, "train", "--trainer.epochs", "--config", "~/run.yaml")
    assert run(capsys, "synth", "~/made", "--num-clips", 30)[0] == 0
    assert (tmp_path / "made" / "dataset.json").is_file()


def test_dry_run_reports_sizes_and_creates_no_files(capsys, write_config, tmp_path: Path) -> None:
    code, out, _ = run(capsys, "train", "--config", write_config(), "--dry-run", "--json", "--trainer.num_workers=2")
    facts = json.loads(out)
    assert code == 0
    assert facts["batch"] == {"global": 16, "workers": 2, "accumulate": 1, "micro": 8}
    assert facts["memory_per_device"]["activations"] > 0
    assert sum(facts["parameters"].values()) == facts["trained"]
    assert not (tmp_path / "runs").exists()
    assert (facts["engine"]["kind"], facts["engine"]["zero_stage"]) == ("torch", None)
    assert "on 2 ranks it needs about" in facts["engine"]["reason"]
    code, out, _ = run(capsys, "train", "--config", write_config(), "--dry-run")
    assert "Engine: torch, because there is one device" in out
    assert "Nothing was started." in out


def test_smoke_test_passes_and_leaves_no_files(capsys, write_config, tmp_path: Path) -> None:
    code, out, _ = run(capsys, "train", "--config", write_config(), "--smoke")
    assert code == 0
    assert "reload: bit-identical" in out
    assert not (tmp_path / "runs").exists()


def test_recipes_are_listed_and_copied_without_overwriting(capsys, tmp_path: Path) -> None:
    code, out, _ = run(capsys, "recipes")
    assert code == 0
    listed = {line.split()[0]: line for line in out.splitlines()}
    assert {"demo", "mosi", "mosi-zero2", "mosei", "mosi-minilm"} <= listed.keys()
    assert all(len(line.split()) > 4 for line in listed.values())
    assert run(capsys, "recipes", "copy", "demo", tmp_path / "mine.yaml")[0] == 0
    assert "already" in mistake(capsys, "recipes", "copy", "demo", tmp_path / "mine.yaml")
    assert "Did you mean 'demo'?" in mistake(capsys, "recipes", "copy", "demi", tmp_path / "other.yaml")
    assert "demo.yaml does not exist" in mistake(capsys, "workflow", "run", "demo.yaml")


def test_without_a_command_the_help_is_printed(capsys) -> None:
    assert run(capsys) == (0, build_parser().format_help(), "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], r"Did you mean 'train'\?"),
        (["data-info"], "required"),
        (["data-info", "nowhere"], "nowhere does not exist"),
        (["data-info", "s3://bucket/x"], "s3://"),
        (["evaluate", "nowhere"], "is not a run"),
        (["report", "nowhere"], "nowhere"),
        (["predict", "nowhere", "--text", "a"], "nowhere"),
        (["predict", "nowhere"], "--text"),
        (["export", "nowhere", "--out", "x"], "nowhere"),
        (["train", "--config", "nowhere.yaml"], "nowhere.yaml does not exist"),
        (["synth", "x", "--num-clips", "many"], "invalid int value"),
        (["synth", "x", "--seeds", "3"], "unknown option --seeds"),
        (["synth", "x", "--search.seed", "3"], "unknown option --search.seed"),
        (["data-info", "s3://$NO_SUCH_BUCKET/x"], "environment variable 'NO_SUCH_BUCKET' is not set"),
        (["data-check", "x", "~no-such-user/x"], "there is no user 'no-such-user'"),
        (["train", "--config", "${NO_SUCH_FOLDER}/run.yaml"], "environment variable 'NO_SUCH_FOLDER' is not set"),
        (["doctor", "--trainer.epochs", "3"], "'--trainer.epochs=3' overrides a config. Add --config"),
        # The word of another program, or the name of a shipped file, in place of a command.
        (["fit", "--config", "demo"], "Did you mean: vadv train?"),
        (["help", "train"], "vadv train --help"),
        (["demo"], "vadv train --config demo) and a workflow of that name (vadv workflow run demo)"),
        (["table6"], "a study of that name (vadv study table6)"),
        (["--config", "demo"], "a command comes before '--config': vadv train --config demo"),
        (["--verson"], "Did you mean '--version'?"),
        # A file without the word before it, or with one too many.
        (["train"], "--config is missing. Give a YAML file or a recipe"),
        (["train", "mosi-minilm", "--smoke"], "vadv train --config mosi-minilm --smoke"),
        (["doctor", "demo"], "vadv doctor --config demo"),
        (["tune", "--config", "demo", "--space", "demo"], "There is a recipe of that name (vadv train --config demo)"),
        (["study", "--config", "table6"], "study: its file is given without --config: vadv study FILE"),
        (["workflow", "demo"], "vadv workflow run demo"),
        (["workflow", "run", "mosi"], "There is a recipe of that name (vadv train --config mosi)"),
        (["ingest", "csv", "x.csv"], "Did you mean: vadv ingest table?"),
        (["ingest", "table", "x.csv", "--out", "y"], "vadv ingest table --csv x.csv --out y"),
        (["predict", "run", "i loved it"], "Did you mean --text 'i loved it'?"),
        (["export", "run", "exports/x"], "Did you mean --out exports/x?"),
        (["evaluate", "--run", "x"], "RUN_OR_EXPORT is given without an option"),
        (["recipes", "list"], "they are listed by: vadv recipes"),
        # The field or option that was meant.
        (["train", "--config", "demo", "--epochs", "3"], "Did you mean --trainer.epochs=VALUE?"),
        (
            ["train", "--config", "demo", "--lr=1"],
            "Did you mean --optimizer.lr=VALUE or --objective.weighting.lr=VALUE",
        ),
        (["train", "--config", "demo", "optimizer.lr=1"], "Did you mean --optimizer.lr=VALUE?"),
        (["train", "--config", "demo", "--dry_run"], "Did you mean --dry-run?"),
        (["tune", "--config", "demo", "--space", "x", "--trials", "3"], "Did you mean --num-trials?"),
        (["train", "--config", "demo", "--data.sources=data/x"], "Write --data.sources='[{uri: data/x}]'"),
        # An unknown option is named rather than what is missing because of it.
        (["train", "--confg", "demo"], "unknown option --confg. Did you mean --config?"),
        (["ingest", "table", "--csv", "x.csv", "--colum", "y"], "ingest table: unknown option --colum. "),
        (["ingest", "table", "--csv", "x.csv", "--colum", "y"], "See `vadv ingest table --help`."),
        (["workflow", "run", "--forse"], "unknown option --forse."),
        (["data-info", "--htm=x", "--jsn"], "data-info: unknown option --jsn. Did you mean --json?"),
        # Files that are something else.
        (["train", "--config="], "it is empty, expected a path"),
        (["train", "--config", "/"], "/ is a folder. Give a YAML file"),
        (["train", "--config", "loss_weights"], "There is a search space of that name (vadv tune --config RUN"),
        (["train", "--config", "extract-raw"], "extract-raw is the config of an extraction, but this command reads"),
        (["extract", "--config", "demo"], "demo is the config of a run, but this command reads"),
        (["runs", "nowhere"], "The folder nowhere does not exist"),
    ],
)
def test_command_line_errors_are_one_line(capsys, arguments, message, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = mistake(capsys, *arguments)
    assert message.replace("\\", "") in said
    assert len(said.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--trainer.epoch=3", "Did you mean 'epochs'?"),
        ("--trainr.epochs=3", "Did you mean 'trainer'?"),
        ("--trainer.epochs=three", "trainer.epochs"),
        ("--trainer.epochs=0", "expected an integer of at least 1"),
        ("--trainer.epochs", "has no value"),
        ("--student.encoder=no-such-encoder", "no-such-encoder"),
        ("--student.encoder=/no/such/folder", "/no/such/folder"),
        ("--student.encoder=package://no_such_package/model", "is not installed"),
        ("--data.max_tokens=5000", "reads at most"),
        ("--teacher.heads=3", "teacher.heads"),
        ("--data.sources=[]", "data.sources is empty"),
        ("--trainer.use_gpu=true", "no CUDA device"),
        ("--engine.offload_optimizer=true", "engine.offload_optimizer"),
    ],
)
def test_invalid_config_is_rejected_before_anything_is_written(
    capsys, write_config, tmp_path, override, message
) -> None:
    if "use_gpu" in override:
        import torch

        if torch.cuda.is_available():
            pytest.skip("there is a GPU")
    said = mistake(capsys, "train", "--config", write_config(), override)
    assert message in said
    assert not (tmp_path / "runs").exists()


def test_unknown_key_in_a_config_file_is_named(capsys, write_config) -> None:
    said = mistake(capsys, "train", "--config", write_config(extra="datas: {batch_size: 3}"))
    assert "unknown section 'datas'" in said
    assert "Did you mean 'data'?" in said


@pytest.mark.parametrize(
    ("command", "file", "said"),
    [
        (
            ["train", "--config"],
            "space: {objective.beta: {fixed: 1}}",
            "is a search space, but .*: vadv tune --config RUN",
        ),
        (
            ["train", "--config"],
            "workflow: {name: x}",
            "is a workflow file, but this .* Use it with: vadv workflow run",
        ),
        (
            ["train", "--config"],
            "{title: t, variants: {a: {}}}",
            "is a study file, but this .* Use it with: vadv study",
        ),
        (["study"], "trainer: {epochs: 1}", "is the config of a run, but .* Use it with: vadv train --config"),
        (["workflow", "run"], "{run: {}, trainer: {}}", "is the config of a run, but this command reads a workflow"),
        (["tune", "--config", "demo", "--space"], "trainer: {}", "is the config of a run, but .* reads a search space"),
        (["train", "--config"], "a: [", r"is not YAML \(line 1, column 5\): "),
    ],
)
def test_file_of_another_command_is_named(capsys, tmp_path: Path, command: list[str], file: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(file)
    message = mistake(capsys, *command, path)
    assert re.search(rf"mine\.yaml {said}", message)
    assert "unicode string" not in message


def test_what_is_near_a_run_leads_to_it(
    capsys, trained: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"give one of them, such as {trained}" in mistake(capsys, "report", trained.parent)
    assert f"give one of them, such as {trained}" in mistake(capsys, "predict", trained.parent, "--text", "fun")
    assert f"It is part of one: give {trained}." in mistake(capsys, "report", trained / "student")
    assert "It is a data set: give the folder of a run" in mistake(capsys, "evaluate", made)
    monkeypatch.chdir(tmp_path)
    assert "Give a folder written by `vadv train`" in mistake(capsys, "evaluate", "small")
    Path("runs").symlink_to(trained.parent)
    assert "Did you mean runs/small?" in mistake(capsys, "evaluate", "small")


def test_damaged_export_is_rejected(capsys, trained: Path, tmp_path: Path) -> None:
    assert run(capsys, "export", trained, "--out", tmp_path / "export")[0] == 0
    weights = tmp_path / "export" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    assert "model.safetensors" in mistake(capsys, "predict", tmp_path / "export", "--text", "a")


def test_full_disk_is_reported_and_leaves_no_partial_files(capsys, write_config, small_disk: Path) -> None:
    code, _, err = run(capsys, "synth", small_disk / "data", "--num-clips", 2000)
    assert code == 1
    assert "No space left" in err
    assert list(small_disk.iterdir()) == []

    config = write_config(storage=small_disk, name="run")
    code, _, err = run(capsys, "train", "--config", config, "--teacher.width=256")
    assert code == 1
    assert "No space left" in err
    assert "Traceback" not in err
    assert list((small_disk / "run" / "checkpoints").iterdir()) == []


def test_invalid_paths_are_user_errors(capsys, write_config, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert "file" in mistake(capsys, "synth", tmp_path / "file" / "data", "--num-clips", 30)
    assert "file" in mistake(capsys, "train", "--config", write_config(), f"--run.storage={tmp_path / 'file'}")
    assert "too long" in mistake(capsys, "evaluate", "a" * 300)
    assert (tmp_path / "file").read_text() == "not a folder"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder_is_a_user_error(capsys, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "may write" in mistake(capsys, "synth", tmp_path / "data", "--num-clips", 60)
