import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_lines import whole

from vadv_dist.errors import UserError
from vadv_dist.reporting.comparison import compare_runs
from vadv_dist.reporting.run_files import read_log, read_run


def log_of(folder, *lines):
    path = folder / "metrics.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


START = json.dumps(whole({"kind": "start"}))
STEP_1 = json.dumps(whole({"kind": "step", "step": 1, "total": 2.0}))
STEP_2 = json.dumps(whole({"kind": "step", "step": 2, "total": 1.0}))


def test_an_incomplete_last_line_is_left_out(tmp_path):
    _, steps, _, _ = read_log(log_of(tmp_path, START, STEP_1, STEP_2[:20]))
    assert [line.step for line in steps] == [1]


def test_a_complete_last_line_without_a_newline_counts(tmp_path):
    _, steps, _, _ = read_log(log_of(tmp_path, START, STEP_1, STEP_2))
    assert [line.step for line in steps] == [1, 2]


def test_repeated_steps_of_a_resumed_run_replace_earlier_ones(tmp_path):
    again = json.dumps(whole({"kind": "step", "step": 1, "total": 7.0}))
    epoch = json.dumps(whole({"kind": "epoch", "step": 1}))
    lines = (START, STEP_1, STEP_2, epoch, again, epoch, '{"kind": "resumed"}', "")
    _, steps, epochs, _ = read_log(log_of(tmp_path, *lines))
    assert [(line.step, line.terms["total"]) for line in steps] == [(1, 7.0), (2, 1.0)]
    assert len(epochs) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (STEP_1[:20], "line 2, is damaged"),
        ("[1, 2]", "line 2, is damaged: expected an object with a `kind`"),
        ('{"step": 1}', "expected an object with a `kind`"),
        (
            '{"kind": "step", "step": "one"}',
            "line 2, .* another version of vadv: step: input should be",
        ),
        ("\udcff\udcfe", "line 2, is damaged"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, message):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(f"{STEP_1}\n{line}\n{STEP_2}\n".encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=message):
        read_log(path)


def test_a_folder_that_is_not_a_run_is_refused(tmp_path, make_run):
    with pytest.raises(UserError, match="does not exist, so it is not a run"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"has no config\.yaml, so it is not a run"):
        read_run(tmp_path)
    run = make_run()
    with pytest.raises(UserError, match="is a file"):
        read_run(run / "config.yaml")
    (run / "metrics.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="contains no steps yet"):
        read_run(run)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.yaml", "a: [", "is not YAML"),
        ("config.yaml", "- 1", "contains a list, expected sections"),
        ("result.json", "{", "cannot be read as JSON"),
        ("evaluation-test.json", "{}", "is damaged, or was written by another version of vadv: run: field required"),
        ("predictions-test.parquet", "PAR1", "cannot be read as Parquet"),
    ],
)
def test_a_damaged_file_is_named(make_run, name, content, message):
    run = make_run()
    (run / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        read_run(run)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(["text"]), "has no column text"),
        (lambda t: t.drop(["video_logit"]), "has no column video_logit"),
        (lambda t: t.slice(0, 0), "contains no clips"),
        (
            lambda t: t.set_column(4, "label", pa.array([None] * len(t), pa.float32())),
            "has 60 values of label that are not finite",
        ),
        (
            lambda t: t.set_column(5, "text_logit", pa.array([float("nan")] + [0.0] * (len(t) - 1))),
            "has 1 values of text_logit that are not finite",
        ),
    ],
)
def test_predictions_that_cannot_be_shown_are_refused(make_run, change, message):
    run = make_run()
    path = run / "predictions-test.parquet"
    table = pq.read_table(path)
    assert table.column_names[4:6] == ["label", "text_logit"]
    pq.write_table(change(table), path)
    with pytest.raises(UserError, match=message) as caught:
        read_run(run)
    assert "vadv evaluate" in str(caught.value)


def test_the_test_split_is_preferred_if_both_its_files_exist(make_run):
    run = make_run(split="valid")
    assert read_run(run).evaluation.split == "valid"
    test = json.loads((run / "evaluation-valid.json").read_text()) | {"split": "test"}
    (run / "evaluation-test.json").write_text(json.dumps(test))
    assert read_run(run).evaluation.split == "valid"
    (run / "predictions-test.parquet").write_bytes((run / "predictions-valid.parquet").read_bytes())
    assert read_run(run).evaluation.split == "test"


def test_an_evaluation_of_other_data_than_the_runs_own_is_refused(make_run) -> None:
    run = make_run()
    path = run / "evaluation-test.json"
    document = json.loads(path.read_text())
    document["data"] = [{"uri": "/elsewhere/data/made", "fingerprint": "abcd" * 16}]
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"of /elsewhere/data/made \(fingerprint abcdabcdabcd\).*trained on .*5f0c"):
        read_run(run)


def test_data_sets_of_two_runs_are_compared_by_fingerprint(make_run) -> None:
    alone, taught = make_run("alone", teacher=False), make_run()
    config = (taught / "config.yaml").read_text()
    (taught / "config.yaml").write_text(config.replace("uri: data/made", "uri: /elsewhere/data/made"))
    assert compare_runs(alone, taught).differing == []
    for name in ("trained-on.json", "evaluation-test.json"):
        document = json.loads((taught / name).read_text())
        document["data"][0]["fingerprint"] = "abcd" * 16
        (taught / name).write_text(json.dumps(document))
    assert compare_runs(alone, taught).differing == ["the data sets they were trained on"]
