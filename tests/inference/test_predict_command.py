"""`vadv predict` on standard input, with intervals, and its mistakes."""

import csv
import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_students import make_card

from vadv_dist.cli import main
from vadv_dist.evaluation.conformal import ErrorQuantiles
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.inference.export import export_student
from vadv_dist.inference.prediction_columns import nearest_words

ON_99_CLIPS = "vadv: the intervals rest on the errors on 99 validation clips"
ERRORS = ErrorQuantiles.of(np.linspace(0.01, 0.99, 99))


@pytest.fixture(scope="module")
def trained(student, tokenizer, tmp_path_factory) -> Path:
    """An export with the errors of its validation split."""
    folder = tmp_path_factory.mktemp("exports") / "trained"
    export_student(student, tokenizer, folder, card=make_card(errors=ERRORS))
    return folder


def predict(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vadv_dist.cli", "predict", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=300)


def test_lines_of_standard_input_are_predicted_as_they_come(trained: Path) -> None:
    command = [sys.executable, "-m", "vadv_dist.cli", "predict", str(trained), "--input", "-", "--json"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        texts = ["i loved the film", "it was awful", "grüße"]
        for text in texts:  # an answer to each before the next is written
            process.stdin.write(text + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            assert answer["text"] == text
            assert isinstance(answer["prediction"], float)
        _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, "")


def test_standard_input_to_a_table_with_intervals(trained: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    texts = "i loved the film\n\nit was awful\n"
    refused = predict(trained, "--input", "-", "--output", target, stdin=texts)
    assert refused.returncode == 2
    assert "row 2 has an empty 'text'" in refused.stderr
    options = ("--input", "-", "--output", target, "--skip-empty", "--interval", "0.8", "--batch-size", "1")
    done = predict(trained, *options, "--device", "cpu", stdin=texts)
    assert (done.returncode, done.stderr) == (0, f"{ON_99_CLIPS}\n")
    assert done.stdout == f"wrote {target}: 2 predictions; 1 rows without words have none\n"
    with target.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == texts.splitlines()
    assert rows[1]["prediction"] == rows[1]["prediction_low"] == rows[1]["prediction_high"] == ""
    for row in (rows[0], rows[2]):
        value, low, high = (float(row[name]) for name in ("prediction", "prediction_low", "prediction_high"))
        np.testing.assert_allclose([high - value, value - low], 0.8, rtol=1e-5)


@pytest.mark.parametrize("to_file", [False, True])
def test_intervals_are_cut_to_the_label_range(
    student, tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str], to_file: bool
) -> None:
    export_student(
        student, tokenizer, tmp_path / "e", card=make_card(errors=ERRORS, labels=LabelScale(-0.75, 0.75, 0.0))
    )
    options = ["--text", "fun", "--json"]
    if to_file:
        (tmp_path / "in.jsonl").write_text('{"text": "fun"}\n')
        options = ["--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    assert main(["predict", str(tmp_path / "e"), "--interval", "0.9", *options]) == 0
    told = capsys.readouterr()
    assert f"{ON_99_CLIPS}, cut to labels in [-0.75, 0.75]\n" in told.err
    row = json.loads((tmp_path / "out.jsonl").read_text()) if to_file else json.loads(told.out)[0]
    low, high = (np.clip(row["prediction"] + side * 0.9, -0.75, 0.75) for side in (-1, 1))
    assert (low, high) != (row["prediction"] - 0.9, row["prediction"] + 0.9)
    np.testing.assert_allclose([row["prediction_low"], row["prediction_high"]], [low, high], atol=1e-6)


def test_predictions_and_exports_are_replaced_but_no_other_files(
    trained: Path, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts, target = tmp_path / "texts.csv", tmp_path / "out.csv"
    texts.write_text("text\nfun\n")
    command = ["predict", str(trained), "--input", str(texts), "--output", str(target), "--interval", "0.9"]
    assert main(command) == 0
    texts.write_text("text\nfun\ndull\n")
    assert main(command) == 2
    assert main([*command, "--overwrite"]) == 0
    assert len(target.read_text().splitlines()) == 3
    assert main(["predict", str(trained), "--input", str(target), "--output", str(texts), "--overwrite"]) == 2
    assert "texts.csv is not replaced: it is not a table" in capsys.readouterr().err
    other = tmp_path / "other.csv"
    other.write_text("text,prediction,checked\nfun,1,yes\n")
    assert main(["predict", str(trained), "--input", str(texts), "--output", str(other), "--overwrite"]) == 2
    assert "it is not a table whose last columns are predictions" in capsys.readouterr().err
    assert "checked" in other.read_text()
    out = tmp_path / "exported"
    export = ["export", str(run_folder), "--out", str(out)]
    assert main(export) == 0
    assert main(export) == 2
    assert main([*export, "--overwrite"]) == 0
    (out / "thoughts.md").write_text("mine")
    assert main([*export, "--overwrite"]) == 2
    assert "thoughts.md in it is not a part of the export" in capsys.readouterr().err


def test_a_prediction_has_the_nearest_word_of_the_training_data(
    student, tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"positive": 1.0, "neutral": 0.0, "negative": -1.0, "fine": 1.0}
    for name, format in (("first", "pytorch"), ("again", "pytorch")):
        if name == "first":
            export_student(student, tokenizer, tmp_path / name, card=make_card(words=words), format=format)
        else:
            assert main(["export", str(tmp_path / "first"), "--out", str(tmp_path / name)]) == 0
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "again"), "--text", "fun", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    expected = {-1: "negative", 0: "neutral", 1: "positive"}[round(max(-1, min(1, row["prediction"])))]
    assert row["prediction_word"] == expected
    assert main(["predict", str(tmp_path / "again"), "--text", "fun"]) == 0
    assert capsys.readouterr().out == f"{row['prediction']:+.3f}  {expected:8}  fun\n"
    texts, out = tmp_path / "in.csv", tmp_path / "out.csv"
    texts.write_text('text\nfun\n""\n')
    command = ["predict", str(tmp_path / "again"), "--input", str(texts), "--output", str(out), "--skip-empty"]
    for again in ([], ["--overwrite"]):
        assert main([*command, *again]) == 0
        with out.open() as file:
            assert [line["prediction_word"] for line in csv.DictReader(file)] == [expected, ""]


def test_the_nearest_word_is_the_first_of_its_number_and_the_lower_of_two() -> None:
    words = {"good": 1.0, "great": 1.0, "bad": -1.0}
    assert nearest_words([0.1, 0.0, -7.0, float("nan")], words) == ["good", "bad", "bad", None]


@pytest.mark.parametrize("format", ["pytorch", "sentence-transformers"])
def test_an_export_names_commands_that_use_it(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], format: str
) -> None:
    out = tmp_path / "my export"
    assert main(["export", str(run_folder), "--out", str(out), "--format", format]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next: ")]
    if format == "sentence-transformers":  # which vadv does not load
        assert told == []
        return
    predict, serve = told[0].removeprefix("next: ").split("; ")
    assert shlex.split(serve) == ["vadv", "serve", str(out)]
    assert main(shlex.split(predict)[1:]) == 0
    assert "what a wonderful film" in capsys.readouterr().out


def test_an_export_of_an_older_version_has_no_intervals(capsys: pytest.CaptureFixture[str], export: Path) -> None:
    assert main(["predict", str(export), "--text", "fun", "--interval", "0.9"]) == 2
    assert "holds no errors on the validation split" in capsys.readouterr().err


def test_the_card_tells_the_interval(trained: Path) -> None:
    assert (
        "90 % of labels are within ± 0.900 of the prediction** on the 99 clips" in (trained / "README.md").read_text()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input", "in.csv"], "--input needs --output"),
        (["--text", "a", "--output", "out.csv"], "--output needs --input"),
        (["--text", "a", "--input", "in.csv"], "Give either --text"),
        (["--text", "a", "--interval", "0.999"], "The interval 0.999 is out of range"),
        (["--text", "a", "--device", "cuda:77"], "Device 'cuda:77' cannot be used"),
        (["--text", "a", "--batch-size", "0"], "0 is not a positive number"),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], trained: Path, options: list[str], message: str) -> None:
    try:
        code = main(["predict", str(trained), *options])
    except SystemExit as ended:  # argparse's own
        code = int(str(ended.code))
    assert code == 2
    assert message in capsys.readouterr().err
