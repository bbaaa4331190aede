"""Stages: what determines their identity, what runs again after a change, and what they leave."""

import dataclasses
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from artefacts import artefacts
from conftest import write_tiny
from rich.console import Console
from workflow_child import PROCESSES, run_here, run_workflow

from vadv_dist import __version__
from vadv_dist.cli.command import main
from vadv_dist.data.synth import make_dataset
from vadv_dist.errors import UserError
from vadv_dist.evaluation.label_scale import METRICS
from vadv_dist.evaluation.paired import Interval
from vadv_dist.storage import read_json
from vadv_dist.studies.tables import interval_text
from vadv_dist.watching.runs import list_runs
from vadv_dist.workflow.explain import explain
from vadv_dist.workflow.plan import Workflow, plan_workflow
from vadv_dist.workflow.run import run_all, run_stage
from vadv_dist.workflow.stage import read_finished
from vadv_dist.workflow.summary import gain_sentence

QUIET = Console(quiet=True)
TRAININGS = ["train-seed-1", "train-alone-seed-1", "train-seed-2", "train-alone-seed-2"]
EVALUATIONS = [name.replace("train", "evaluate") for name in TRAININGS]
DATA = ["data-made", "check-made", "advise-made"]
ALL = [*DATA, *TRAININGS, *EVALUATIONS, "export", "report"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a workflow that ran to its end."""
    folder = tmp_path_factory.mktemp("done")
    file = write_tiny(folder, folder / "runs")
    run_all(plan_workflow(file), QUIET)
    return file


def reruns(file: Path, *overrides: str, force: tuple[str, ...] = ()) -> dict[str, str]:
    """Reasons by the stages that would run."""
    return {each.stage: each.why for each in explain(plan_workflow(file, overrides), force) if each.will_run}


def test_a_complete_workflow_runs_nothing(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workflow = plan_workflow(done)
    assert list(workflow.stages) == ALL
    assert reruns(done) == {}
    for name, stage in list(workflow.stages.items()):
        workflow.stages[name] = dataclasses.replace(stage, run=lambda work: pytest.fail("it ran"))
    assert list(run_all(workflow, QUIET)) == ALL


def test_every_stage_leaves_a_page_and_a_record(done: Path) -> None:
    workflow = plan_workflow(done)
    for name, stage in workflow.stages.items():
        folder = workflow.folder(stage)
        record = read_json(folder / "stage.json")
        assert (record["stage"], record["identity"], record["attempt"]) == (name, stage.identity, 1)
        assert "<h1>" in (folder / "card.html").read_text()
    evaluation = workflow.folder(workflow.stages["evaluate-seed-1"])
    run = workflow.folder(workflow.stages["train-seed-1"]) / "tiny-seed-1"
    assert (evaluation / "evaluation-test.json").is_file()
    assert not list(run.glob("evaluation-*"))


def test_its_trainings_are_listed(done: Path) -> None:
    workflow = plan_workflow(done)
    stage = workflow.folder(workflow.stages["train-seed-1"])
    found = {run["name"]: run["state"] for run in list_runs(str(done.parent / "runs"))}
    assert found[f"tiny/train-seed-1/{stage.name}/tiny-seed-1"] == "complete"
    assert len(found) == len(TRAININGS)
    assert len(list_runs(str(stage.parent.parent))) == len(TRAININGS)
    assert [run["name"] for run in list_runs(str(stage.parent))] == [f"{stage.name}/tiny-seed-1"]


def test_the_report_has_every_seed_with_and_without_teacher(done: Path) -> None:
    workflow = plan_workflow(done)
    folder = workflow.folder(workflow.stages["report"])
    report = read_json(folder / "report.json")
    found = {(variant["name"], run["seed"]): run["values"] for variant in report["variants"] for run in variant["runs"]}
    assert set(found) == {(name, seed) for name in ("student alone", "with teacher") for seed in (1, 2)}
    for (name, seed), values in found.items():
        stage = f"evaluate-{'alone-' if name == 'student alone' else ''}seed-{seed}"
        evaluation = read_json(workflow.folder(workflow.stages[stage]) / "evaluation-test.json")
        assert values["test"]["mae"] == evaluation["student"]["mae"]
    assert "95 % interval" in report["finding"]
    page = (folder / "report.html").read_text()
    assert '<th scope="row">student alone<small>reference</small></th>' in page
    for name in ALL[:-1]:
        (link,) = {part.split('"')[0] for part in page.split('href="') if f"/{name}/" in part.split('"')[0]}
        assert (folder / link).is_file()


@pytest.mark.parametrize(
    ("metric", "difference", "said"),
    [
        ("mae", (-0.015, -0.065, 0.035), "No gain is shown: the student’s MAE changes by −0.015 with its teacher"),
        ("mae", (-0.05, -0.065, -0.035), "The student is better: the student’s MAE changes by −0.050 with its teacher"),
        ("mae", (0.05, 0.035, 0.065), "The student is worse: the student’s MAE changes by +0.050 with its teacher"),
        ("a7", (0.02, 0.01, 0.03), "The student is better: the student’s A7 (%) changes by +2.0 with its teacher"),
        ("a7", (-0.02, -0.03, -0.01), "The student is worse: the student’s A7 (%) changes by −2.0 with its teacher"),
    ],
)
def test_the_finding_and_its_interval_have_the_same_sign(
    metric: str, difference: tuple[float, float, float], said: str
) -> None:
    shown = METRICS[metric]
    interval = interval_text(Interval(*difference), shown, signed=True)
    sentence = gain_sentence(Interval(*difference), shown, 3)
    assert sentence == f"{said} (95 % interval {interval}, over 3 seeds and the clips)."


def test_the_export_is_the_best_seed_on_the_validation_split(done: Path) -> None:
    workflow = plan_workflow(done)
    export = workflow.folder(workflow.stages["export"])
    costs = {}
    for name in ("train-seed-1", "train-seed-2"):
        run = workflow.folder(workflow.stages[name]) / name.replace("train", "tiny")
        costs[name] = read_json(run / "result.json")["validation"]["mae"]
    best = min(costs, key=lambda name: costs[name])
    assert read_json(export / "stage.json")["values"]["of"] == best
    card = read_json(export / "pytorch" / "vadv_export.json")
    scored = workflow.folder(workflow.stages[best.replace("train", "evaluate")])
    assert card["metrics"]["test"]["mae"] == read_json(scored / "evaluation-test.json")["student"]["mae"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["--export.formats=[pytorch, onnx]"], {"export", "report"}),
        (["--evaluate.split=valid"], {*EVALUATIONS, "export", "report"}),
        (["--advise.seed=2"], {"advise-made", "report"}),
        (["--workflow.seeds=[1, 2, 3]"], {*(n for n in (
            "train-seed-3", "train-alone-seed-3", "evaluate-seed-3", "evaluate-alone-seed-3")), "export", "report"}),
        (["--data.made.made.num_clips=161"], set(ALL)),
        (['--train.overrides={"student.encoder": "data:made/encoder", "trainer": {"num_workers": 0, "use_gpu": false, '
          '"epochs": 2}, "engine": {"kind": "torch"}}'], {*TRAININGS, *EVALUATIONS, "export", "report"}),
        (['--train.overrides={"student.encoder": "data:made/encoder", "trainer": {"num_workers": 2, "use_gpu": true, '
          '"epochs": 1}, "engine": {"kind": "torch"}}'], set()),
    ],
)  # fmt: skip
def test_a_change_runs_what_depends_on_it(done: Path, overrides: list[str], expected: set[str]) -> None:
    assert set(reruns(done, *overrides)) == expected


def test_explanations_name_the_change(done: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    found = reruns(done, "--data.made.made.num_clips=161")
    assert found["data-made"] == "made.num_clips: 160 → 161"
    assert found["check-made"] == "data-made has changed"
    assert main(["workflow", "explain", str(done), "--export.formats=[onnx]"]) == 0
    assert "formats: ['pytorch'] → ['onnx']" in capsys.readouterr().out
    assert main(["workflow", "status", str(done)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[2:]] == [[name, "complete", "1×"] for name in ALL]
    monkeypatch.setattr("vadv_dist.workflow.stage.__version__", "9.9")
    monkeypatch.setattr("vadv_dist.workflow.explain.__version__", "9.9")
    found = reruns(done)
    assert set(found) == set(ALL)
    assert found["data-made"] == f"version {__version__} is now 9.9"


def test_a_forced_stage_runs_once_more_and_what_it_did_not_change_is_kept(done: Path) -> None:
    assert reruns(done, force=("check-made",)) == {"check-made": "forced"}
    workflow = plan_workflow(done)
    folder = workflow.folder(workflow.stages["check-made"])
    (folder / "left-over").write_text("of an earlier attempt")
    run_stage(workflow, "check-made", QUIET, force=True)
    assert read_json(folder / "stage.json")["attempt"] == 2
    assert not (folder / "left-over").exists()
    assert reruns(done) == {}
    with pytest.raises(UserError, match=r"no stage 'chek-made'.*Did you mean 'check-made'"):
        explain(workflow, ("chek-made",))


def test_a_stage_killed_while_its_folder_is_cleared_starts_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_tiny(tmp_path, tmp_path / "runs")
    workflow = plan_workflow(file)
    run_stage(workflow, "data-made", QUIET)
    folder = workflow.folder(workflow.stages["data-made"])

    def interrupted(place: Path, **settings: object) -> None:
        (place / "stage.json").unlink()
        shutil.rmtree(place / "made" / "encoder")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vadv_dist.workflow.run.clear", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_stage(workflow, "data-made", QUIET, force=True)
    assert (folder / "made" / "dataset.json").is_file()
    run_stage(workflow, "data-made", QUIET)
    assert (folder / "made" / "encoder" / "config.json").is_file()
    assert not (folder / ".clearing").exists()


def test_another_result_of_an_input_runs_what_reads_it(tmp_path: Path) -> None:
    file = write_tiny(tmp_path, tmp_path / "runs")
    workflow = plan_workflow(file)
    run_stage(workflow, "data-made", QUIET)
    run_stage(workflow, "check-made", QUIET)
    record = workflow.folder(workflow.stages["data-made"]) / "stage.json"
    record.write_text(json.dumps({**read_json(record), "digest": "of another result"}))
    assert reruns(file)["check-made"] == "data-made gave another result since"
    run_stage(workflow, "check-made", QUIET)
    assert "check-made" not in reruns(file)


def test_a_stage_whose_inputs_are_missing_is_refused(tiny: Callable[..., Workflow]) -> None:
    with pytest.raises(UserError, match="check-made needs data-made, which is not complete"):
        run_stage(tiny(), "check-made", QUIET)
    assert not tiny().root.exists()


def test_a_failed_stage_is_shown_and_tried_again(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", num_clips=160, visual_shape=(2, 1, 8), face_shape=(2, 4))
    file = tmp_path / "ready.yaml"
    file.write_text(
        f"workflow: {{name: w, storage: {tmp_path / 'runs'}, seeds: [1]}}\n"
        f"data: {{mine: {{kind: ready, uri: {tmp_path / 'data'}}}}}\n"
        f"train: {{config: demo, overrides: {{student.encoder: {tmp_path / 'data' / 'encoder'}}}}}\n"
    )
    shard = tmp_path / "data" / "train" / "00000.parquet"
    content = shard.read_bytes()
    shard.write_bytes(content[:-100] + b"0" * 100)
    workflow = plan_workflow(file)
    run_stage(workflow, "data-mine", QUIET)
    with pytest.raises(UserError, match="The data set mine cannot be used"):
        run_stage(workflow, "check-mine", QUIET)
    assert reruns(file)["check-mine"].startswith("it failed: The data set mine cannot be used")
    assert read_finished(workflow.folder(workflow.stages["check-mine"])) is None
    shard.write_bytes(content)
    run_stage(workflow, "check-mine", QUIET)
    assert "check-mine" not in reruns(file)


def test_a_changed_file_from_outside_is_another_data_set(tmp_path: Path) -> None:
    table = tmp_path / "clips.csv"
    rows = [f"v{n // 4}_{n % 4},{('train', 'valid', 'test')[n // 4 % 3]},{n % 5 - 2},some words {n}" for n in range(48)]
    table.write_text("\n".join(["id,split,label,text", *rows]) + "\n")
    file = tmp_path / "table.yaml"
    file.write_text(
        f"workflow: {{name: w, storage: {tmp_path / 'runs'}, seeds: [1]}}\n"
        f"data: {{mine: {{kind: table, csv: {table}}}}}\n"
        "train: {config: demo, overrides: {objective: none}}\n"
    )
    run_stage(plan_workflow(file), "data-mine", QUIET)
    finished = read_finished(plan_workflow(file).folder(plan_workflow(file).stages["data-mine"]))
    assert finished is not None
    assert finished.values["rows"] == {"train": 16, "valid": 16, "test": 16}
    moved = tmp_path / "moved.csv"
    table.rename(moved)
    file.write_text(file.read_text().replace(str(table), str(moved)))
    assert "data-mine" not in reruns(file)
    moved.write_text(moved.read_text().replace("some words 7", "other words"))
    assert reruns(file)["data-mine"] == f"{moved} changed"
    moved.unlink()
    with pytest.raises(UserError, match=r"data\.mine: .*moved\.csv is not a file"):
        plan_workflow(file)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--data.made.kind=tabel", r"data\.made\.kind is 'tabel'.*Did you mean 'table'"),
        ("--train.config=nowhere", "nowhere does not exist"),
        ('--train.overrides={"run.seed": 3}', "overrides is 'run.seed', expected another field"),
        (
            '--train.overrides={"student.encoder": "data:other/encoder"}',
            "refers to data:other, expected one of .* made",
        ),
        ('--train.overrides={"trainer.epochz": 3}', r"unknown field trainer\.epochz"),
        ("--workflow.seeds=[1, 1]", "unique entries"),
        ("--workflow.name=a/b", "a plain folder name"),
        ("--tune.space=nowhere", "nowhere does not exist"),
        ("--study.file=nowhere", "nowhere does not exist"),
    ],
)
def test_mistakes_are_reported_before_anything_starts(
    tiny: Callable[..., Workflow], override: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        tiny(override)


# Files that say when and how fast something was done, and such lines of others.
@pytest.mark.slow
def test_killed_inside_each_stage_it_ends_as_if_undisturbed(done: Path) -> None:
    workflow = plan_workflow(done)
    undisturbed, took = artefacts(workflow.root), {}
    for name, stage in workflow.stages.items():
        record = read_json(workflow.folder(stage) / "stage.json")
        took[name] = record["finished"] - record["started"]
    shutil.rmtree(workflow.root)
    for name in ALL:
        assert run_workflow(str(done), kill_in=name, after_s=took[name] / 2) == -signal.SIGKILL
    assert run_workflow(str(done)) == 0
    for name, stage in workflow.stages.items():
        outcomes = sorted((workflow.folder(stage) / "attempts").glob("*.outcome.json"))
        assert [read_json(path)["state"] for path in outcomes] == ["lost", "complete"], name
    ended = artefacts(workflow.root)
    assert set(ended) == set(undisturbed)
    assert [name for name in ended if ended[name] != undisturbed[name]] == []


@pytest.mark.parametrize("completed", [True, False])
def test_incomplete_files_of_a_killed_stage_are_removed(done: Path, completed: bool) -> None:
    workflow = plan_workflow(done)
    folder = workflow.folder(workflow.stages["report"])
    names = (".stage.json", "figures/.seeds.pdf", "attempts/.000001.json")
    left = [folder / f"{name}.partial-7-00000000" for name in names]
    for path in left:
        path.write_bytes(b"{")
    (folder / "stage.json").unlink()
    if not completed:
        shutil.rmtree(folder / "attempts")
    run_stage(workflow, "report", QUIET)
    assert [path for path in left if path.exists()] == []


@pytest.mark.slow
def test_two_workflows_at_once_share_the_work(tmp_path: Path) -> None:
    file = write_tiny(tmp_path, tmp_path / "runs")
    file.write_text(file.read_text().replace("[1, 2]", "[1]"))
    both = [PROCESSES.Process(target=run_here, args=(str(file),)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    workflow = plan_workflow(file)
    for name, stage in workflow.stages.items():
        outcomes = sorted((workflow.folder(stage) / "attempts").glob("*.outcome.json"))
        states = [read_json(path)["state"] for path in outcomes]
        assert states in (["complete"], ["complete", "not needed"]), name


def test_stages_in_an_object_store(tmp_path: Path, s3: str) -> None:
    file = write_tiny(tmp_path, f"{s3}/workflows")
    workflow = plan_workflow(file)
    for name in ("data-made", "check-made"):
        run_stage(workflow, name, QUIET)
    assert {"data-made", "check-made"} & set(reruns(file)) == set()
    assert reruns(file, "--data.made.made.num_clips=161")["data-made"] == "made.num_clips: 160 → 161"
    folder = workflow.folder(workflow.stages["check-made"])
    (folder / "left" / "over").write_bytes(b"of an earlier attempt")
    run_stage(workflow, "check-made", QUIET, force=True)
    assert read_json(folder / "stage.json")["attempt"] == 2
    assert not (folder / "left" / "over").is_file()
    assert (folder / "check.json").is_file()
