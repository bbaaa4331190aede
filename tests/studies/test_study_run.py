"""A study from its file to its documents, with real trainings in this process."""

import json
import re
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from vadv_dist.cli import main
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.synth import make_dataset
from vadv_dist.errors import UserError
from vadv_dist.evaluation.significance import aso
from vadv_dist.runs.folder import FAILURE
from vadv_dist.storage import location, read_json, write_json
from vadv_dist.studies import study as study_module
from vadv_dist.studies.analysis import StudyResult
from vadv_dist.studies.plan import StudyPlan, plan_study
from vadv_dist.studies.study import run_study
from vadv_dist.watching.runs import list_runs

pytestmark = pytest.mark.slow
QUIET = Console(quiet=True)
Finished = tuple[Path, StudyPlan, StudyResult]


@pytest.fixture
def copied(finished: Finished, tmp_path: Path, write_study: Callable[..., Path]) -> Path:
    """A copy of the finished study, whose folder may change."""
    path, plan, _ = finished
    copy = write_study(tmp_path)
    shutil.copytree(Path(str(plan.root)), tmp_path / "out" / path.stem)
    return copy


def forbid_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("trains although nothing is left")

    monkeypatch.setattr(study_module, "pool_for", refuse)


def test_cells_are_the_numbers_of_ordinary_runs(finished: Finished) -> None:
    _, plan, _ = finished
    document = read_json(plan.root / "study.json")
    by_name = {variant["name"]: variant for variant in document["variants"]}
    assert [*by_name] == ["alone", "both steps", "far & too_fast", "zero"]
    for run in by_name["both steps"]["runs"]:
        evaluation = read_json(Path(run["folder"]) / "evaluation-test.json")
        assert run["state"] == "complete"
        assert run["values"]["test"]["mae"] == evaluation["student"]["mae"]
        assert (Path(run["folder"]) / "student" / "config.json").is_file()
    values = [run["values"]["test"]["mae"] for run in by_name["both steps"]["runs"]]
    cell = by_name["both steps"]["cells"]["test"]["mae"]
    assert cell["mean"] == pytest.approx(statistics.fmean(values))
    assert cell["sd"] == pytest.approx(statistics.stdev(values))
    assert cell["low"] < cell["mean"] < cell["high"]
    assert (cell["seeds"], cell["asked"], cell["covers"]) == (2, 2, "seeds and clips")
    assert by_name["alone"]["cells"]["test"]["mae"]["published"] == by_name["alone"]["published"]["mae"] == 1.2


def test_outside_predictions_are_scored_on_the_same_clips(finished: Finished, made: Path) -> None:
    _, _, result = finished
    [run] = result.runs_of("zero")
    label = np.array([*Dataset.open(made).column("test", "label")], np.float32)
    expected = np.abs(np.float32(0.01 * np.arange(len(label))) - label).mean()
    assert run.values["test"]["mae"] == pytest.approx(expected, rel=1e-5)
    pair = result.analysis.pair("test", "mae", "zero", "alone")
    assert pair.paired
    assert pair.seeds == 2
    assert pair.epsilon is None  # one sample has no distribution


def test_every_pair_is_compared_in_both_directions(finished: Finished) -> None:
    _, _, result = finished
    forth, back = (result.analysis.pair("test", "mae", *names) for names in (("alone", "zero"), ("zero", "alone")))
    assert forth.difference.mean == -back.difference.mean
    assert (forth.difference.low, forth.difference.high) == (-back.difference.high, -back.difference.low)
    a, b = ([run.values["test"]["mae"] for run in result.runs_of(name)] for name in ("alone", "both steps"))
    pair = result.analysis.pair("test", "mae", "both steps", "alone")
    assert pair.difference.mean == pytest.approx(np.mean(np.subtract(b, a)))
    # Errors are negated, and three variants have scores: three pairs.
    assert pair.epsilon == aso(np.negative(b), np.negative(a), seed=0)
    assert pair.epsilon_corrected == aso(np.negative(b), np.negative(a), seed=0, num_comparisons=3)


def test_failed_run_stays_visible_and_its_cells_are_marked(finished: Finished) -> None:
    _, plan, _ = finished
    document = read_json(plan.root / "study.json")
    failed = document["variants"][2]
    assert [run["state"] for run in failed["runs"]] == ["failed", "failed"]
    assert "NaN or infinity" in failed["runs"][0]["problem"]
    assert failed["cells"]["test"]["mae"]["seeds"] == 0
    page, text = ((plan.root / f"study.{kind}").read_text() for kind in ("html", "md"))
    assert "[0 of 2]" in page
    assert "\\[0 of 2\\]" in text
    assert "far &amp; too_fast, seed 1" in page
    assert "<script" not in page


def test_documents_have_the_table_and_its_labels(finished: Finished) -> None:
    _, plan, _ = finished
    tex = (plan.root / "study.tex").read_text()
    assert r"far \& too\_fast" in tex
    assert tex.count(r"\toprule") == tex.count(r"\bottomrule") == 1
    rows = [line for line in tex.splitlines() if line.endswith(r"\\")]
    assert len({row.replace(r"\&", "").count("&") for row in rows}) == 1
    assert (plan.root / "study.pdf").read_bytes().startswith(b"%PDF")
    text = (plan.root / "study.md").read_text()
    assert "best per metric on test, as some papers report" in text
    assert "a table, p. 3" in text
    assert "MAE, published" in text
    assert {path.suffix for path in (Path(str(plan.root)) / "figures").iterdir()} == {".png", ".pdf"}


def test_best_per_metric_on_test_is_at_least_as_good_as_the_selected_checkpoint(finished: Finished) -> None:
    _, _, result = finished
    for run in result.runs_of("both steps"):
        assert run.checkpoints == 2
        for metric in result.metrics:
            assert metric.cost(run.best_on_test[metric.key]) <= metric.cost(run.values["test"][metric.key]) + 1e-9


def test_finished_study_trains_nothing_and_gives_the_same_bytes(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, plan, _ = finished
    names = ("study.json", "study.md", "study.tex", "study.html")
    before = {name: (plan.root / name).read_bytes() for name in names}
    forbid_training(monkeypatch)
    run_study(plan_study(path), QUIET, use_ray=False, best_per_metric=True)
    assert {name: (plan.root / name).read_bytes() for name in names} == before


def test_added_seed_and_variant_train_only_what_is_new(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = copied.read_text().replace("seeds: [1, 2]", "seeds: [2, 3]").replace("  far & too_fast", "  spare")
    copied.write_text(text.replace("{optimizer.lr: 1.0e+30, optimizer.clip_norm: null}", "{objective: kd}"))
    assert main(["study", str(copied), "--no-ray", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "6 trainings (3 variants × 2 seeds), 2 complete, 4 to train" in said
    assert re.search(r"complete +alone, seed 2\n", said)
    assert main(["study", str(copied), "--no-ray", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [variant["name"] for variant in document["variants"]] == ["alone", "both steps", "spare", "zero"]
    assert {run["state"] for variant in document["variants"][:3] for run in variant["runs"]} == {"complete"}


def test_changed_variant_is_refused_with_its_fields_and_others_are_kept(copied: Path) -> None:
    copied.write_text(copied.read_text().replace("both steps: {}", "both steps: {overrides: {objective.psi: 3.0}}"))
    with pytest.raises(UserError, match=r"both-steps-seed-1: objective.psi: 1.0 there, 3.0 now") as raised:
        run_study(plan_study(copied), QUIET, use_ray=False)
    assert "alone-seed" not in str(raised.value)


def test_replaced_data_is_refused(copied: Path, tmp_path: Path, made: Path) -> None:
    make_dataset(tmp_path / "other", num_clips=150, seed=9)
    config = tmp_path / "base.yaml"
    config.write_text(config.read_text().replace(f"uri: {made}", f"uri: {tmp_path / 'other'}"))
    with pytest.raises(UserError, match=r"alone-seed-1: trained on .*now .*other"):
        run_study(plan_study(copied), QUIET, use_ray=False)


def test_failed_runs_are_trained_again_only_on_request(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = copied.parent / "out" / "parts" / "runs"
    assert (root / "far-too_fast-seed-1" / FAILURE).is_file()
    (root / "far-too_fast-seed-1" / FAILURE).write_text('{"kind": "crash", "message": "an old one"}')
    with monkeypatch.context() as patch:
        forbid_training(patch)
        result = run_study(plan_study(copied), QUIET, use_ray=False)
    assert ("far & too_fast, seed 1", "crash: an old one") in result.problems
    again = run_study(plan_study(copied), QUIET, use_ray=False, retry_failed=True)
    assert all("NaN" in why for _, why in again.problems)


def test_run_without_its_files_is_kept_as_a_problem(copied: Path) -> None:
    root = copied.parent / "out" / "parts" / "runs" / "alone-seed-2"
    (root / "evaluation-test.json").unlink()
    shutil.rmtree(root / "checkpoints")
    result = run_study(plan_study(copied), QUIET, use_ray=False)
    [problem] = [why for name, why in result.problems if name == "alone, seed 2"]
    assert problem.startswith("not evaluated: ")
    cell = result.analysis.cells["alone"]["test"]["mae"]
    assert cell.is_short
    assert len(cell.values) == 1


def test_keeping_students_only_removes_checkpoints_after_the_evaluation(copied: Path) -> None:
    copied.write_text(copied.read_text() + "keep: student\n")
    result = run_study(plan_study(copied), QUIET, use_ray=False)
    root = copied.parent / "out" / "parts" / "runs" / "alone-seed-1"
    assert not (root / "checkpoints").exists()
    assert (root / "student").is_dir()
    assert run_study(plan_study(copied), QUIET, use_ray=False).to_json() == result.to_json()


def test_documents_are_written_anew_from_the_runs_as_far_as_they_are(
    finished: Finished, copied: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = copied.parent / "out" / "parts"

    def documents() -> dict[str, str]:
        """Without the folder of the study, which is a copy."""
        texts = {name: (root / name).read_text() for name in ("study.json", "study.md", "study.tex", "study.html")}
        for folder in (finished[0].parent, copied.parent):
            texts = {name: text.replace(str(folder), "") for name, text in texts.items()}
        return texts

    assert main(["watch", str(root)]) == 0
    assert capsys.readouterr().out.splitlines()[:5] == [
        f"{root}: complete",
        "6 of 6 trainings done",
        "alone: 2 of 2 seeds complete",
        "both steps: 2 of 2 seeds complete",
        "far & too_fast: 0 of 2 seeds complete, 2 failed",
    ]
    forbid_training(monkeypatch)
    before = documents()
    for name in before:
        (root / name).unlink()
    assert main(["report", str(root)]) == 0
    assert capsys.readouterr().out == f"{root}/study.html\n"
    assert documents() == before

    (root / "runs" / "alone-seed-2" / "result.json").unlink()
    shutil.rmtree(root / "runs" / "far-too_fast-seed-1")
    progress = read_json(root / "progress.json")
    running = {"name": "alone, seed 2", "since": progress["time"], "run": "runs/alone-seed-2"}
    write_json(root / "progress.json", {**progress, "state": "running", "running": [running], "ended": 4})
    assert main(["watch", str(root), "--once"]) == 0
    said = capsys.readouterr().out
    assert "alone: 1 of 2 seeds complete, 1 running\n" in said
    assert "far & too_fast: 0 of 2 seeds complete, 1 failed, 1 waiting\nfailed: far & too_fast, seed 2: NaN or" in said
    assert "  alone, seed 2: 2 epochs done, running for" in said
    assert main(["watch", str(root), "--json"]) == 0
    assert [run["state"] for run in json.loads(capsys.readouterr().out)["runs"]].count("complete") == 3
    assert main(["report", str(root)]) == 0
    assert read_json(root / "study.json")["runs_left"] == 2
    text = (root / "study.md").read_text()
    assert "Not finished: 2 of 7 runs are left to train." in text
    assert "\\[1 of 2\\]" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([("both steps: {}", "both steps: {overrides: {student.hiden: 3}}")], "variant 'both steps'.*student.hiden"),
        ([("seeds: [1, 2]", "metrics: [mae, blue]")], "metrics: unknown metric 'blue'"),
        ([("{mae: 1.2}", "{mea: 1.2}")], "variant 'alone', published: unknown metric 'mea'"),
        ([("both steps: {}", "both steps: {overrides: {data.sources: []}}")], "variant 'both steps'"),
        ([("seeds: [1, 2]", "seeds: []")], "seeds is"),
    ],
)
def test_mistake_is_one_message_and_nothing_is_trained(
    tmp_path: Path,
    write_study: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    changes: list[tuple[str, str]],
    said: str,
) -> None:
    path = write_study(tmp_path, *changes)
    assert main(["study", str(path), "--no-ray"]) == 2
    shown = capsys.readouterr().err
    assert re.search(said, shown)
    assert "Traceback" not in shown
    assert not (tmp_path / "out" / "parts" / "runs").exists()


def test_report_and_evaluations_of_a_run_work_as_for_any_other(copied: Path) -> None:
    root = copied.parent / "out" / "parts" / "runs" / "both-steps-seed-1"
    assert main(["report", str(root)]) == 0
    assert main(["watch", "--once", str(root)]) == 0
    assert pq.read_table(root / "predictions-test.parquet").num_rows == 46


def test_study_in_an_object_store_resumes_and_is_listed(
    tmp_path: Path, write_study: Callable[..., Path], s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_study(
        tmp_path, ("  both steps: {}\n", ""), ("optimizer.lr: 1.0e+30, optimizer.clip_norm: null", "objective: kd")
    )
    given = (f"--run.storage={s3}/studies", "--trainer.epochs=1")
    result = run_study(plan_study(path, given, seeds=(1,)), QUIET, use_ray=False)
    assert result.problems == []
    root = location(f"{s3}/studies/parts")
    document = read_json(root / "study.json")
    assert document["variants"][0]["cells"]["test"]["mae"]["seeds"] == 1
    assert (root / "figures" / "seeds-test-mae.png").is_file()
    assert {run["name"] for run in list_runs(f"{s3}/studies")} == {
        "parts/runs/alone-seed-1",
        "parts/runs/far-too_fast-seed-1",
    }
    forbid_training(monkeypatch)
    run_study(plan_study(path, given, seeds=(1,)), QUIET, use_ray=False)
    assert read_json(root / "study.json") == document


def test_searches_and_studies_do_not_write_into_each_other(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = tmp_path / "parts.yaml"
    space.rename(tmp_path / "study.yaml")
    space.write_text("space: {objective.psi: {distribution: float, low: 0.1, high: 20.0}}")
    (tmp_path / "out" / "parts").rename(tmp_path / "out" / "run-parts")
    command = ["tune", "--config", str(tmp_path / "base.yaml"), "--space", str(space), "--no-ray"]
    assert main(command) == 2
    assert "is a study of variants" in capsys.readouterr().err
    (tmp_path / "out" / "search").mkdir()
    (tmp_path / "out" / "search" / "study.yaml").write_text("search: {}\nstudy: a")
    assert main(["study", str(tmp_path / "study.yaml"), "--no-ray", "--name", "search"]) == 2
    assert "is something else, not a study" in capsys.readouterr().err


def test_a_study_of_classes_compares_accuracy(made_classes: Path, tmp_path: Path) -> None:
    """Trained runs, and another program's predictions, which are the labels."""
    test = Dataset.open(made_classes)
    names = test.manifest.label.classes
    rows = zip(test.column("test", "clip_id"), test.column("test", "label"), strict=True)
    lines = ["clip_id,prediction", *(f"{clip},{names[int(label)]}" for clip, label in rows)]
    (tmp_path / "right.csv").write_text("\n".join(lines))
    (tmp_path / "base.yaml").write_text(
        f"data: {{sources: [{{uri: {made_classes}}}], batch_size: 16}}\n"
        f"student: {{encoder: {made_classes}/encoder, pretrained: false, hidden: 16}}\n"
        "teacher: {width: 16, heads: 2, hidden: 16}\n"
        f"trainer: {{epochs: 1, use_gpu: false}}\nrun: {{storage: {tmp_path / 'out'}}}\n"
    )
    (tmp_path / "moods.yaml").write_text(
        f"title: Moods\nabout: A test.\nconfig: {tmp_path / 'base.yaml'}\nreference: alone\nseeds: [1]\n"
        "variants:\n  alone: {overrides: {objective.kind: none}}\n  taught: {}\n"
        f"  right: {{predictions: {tmp_path / 'right.csv'}}}\n"
    )
    plan = plan_study(tmp_path / "moods.yaml")
    run_study(plan, QUIET, use_ray=False)
    document = read_json(plan.root / "study.json")
    by_name = {variant["name"]: variant["cells"]["test"]["accuracy"]["mean"] for variant in document["variants"]}
    assert by_name["right"] == 1
    assert by_name["alone"] < 1
    assert "taught" in by_name
