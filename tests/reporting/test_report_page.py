import html
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from run_lines import whole

from vadv_dist.errors import UserError
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.reporting.report import report_page, write_report
from vadv_dist.reporting.run_files import read_run


class Page(HTMLParser):
    """Reads a page strictly: every element is closed in order."""

    VOID = frozenset({"meta", "link"})

    def __init__(self, source):
        super().__init__()
        self.source = source
        self.elements, self.open, self.words, self.headings = [], [], [], []
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if "style" not in self.open and "title" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def page_of(run, **arguments):
    records = [read_run(path) for path in (run, *arguments.get("compare", ()))]
    return Page(report_page(records[0], records[1:]).html)


def test_restarts_are_counted_by_cause(make_run):
    run = make_run()
    assert "Restarts" not in page_of(run).text
    log = run / "metrics.jsonl"
    lines = log.read_text().splitlines()
    last = json.loads(lines[-1])
    again = {**json.loads(lines[0]), "step": last["step"], "epoch": last["epoch"], "time": last["time"] + 5}
    log.write_text(
        "\n".join([*lines, *(json.dumps({**again, "cause": c}) for c in ("hang", "preemption", "hang"))]) + "\n"
    )
    assert "Restarts 2 × hang, 1 × preemption" in page_of(run).text


def test_the_slowest_rank_and_the_bytes_read_are_facts(make_run):
    run = make_run()
    assert "Slowest rank" not in page_of(run).text
    log = run / "metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "step"]
    for line in steps:
        line |= {"compute_s": [0.25, 0.4], "node_bytes": [1 << 20, 2 << 20]}
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = page_of(run).text
    assert "Slowest rank 1, computing 1.60 × as long as others" in text
    assert f"Data read {len(steps)} to {2 * len(steps)} MiB on each of 2 nodes" in text


def test_a_run_with_a_teacher_has_every_section(make_run):
    page = page_of(make_run())
    assert page.headings == [
        "Metrics",
        "Training",
        "Predictions and labels",
        "Distribution of logits",
        "Seven classes",
        "Errors by group",
        "Calibration",
        "What the teacher saw better",
        "Worst predictions",
        "Run",
    ]
    # Scores; validation, five terms, total, rate and norm; three scatters; labels and three logits; two of classes;
    # words and labels; calibration.
    assert len(page.all("svg")) == 1 + 9 + 3 + 4 + 2 + 2 + 1
    assert "weight ψ = 1" in page.text


@pytest.mark.parametrize(
    ("scale", "labels", "classes", "shown", "absent"),
    [
        (LabelScale(1, 5, 3), [1, 2, 3, 4, 5], "Two classes", ["A2 ↑has 3", "3 counts as positive"], "No A7: defined"),
        (LabelScale(-1, 1, 0), [-0.8, -0.4, 0, 0.4, 1], "Five classes", ["A5", "A3", "A2 ↑neg0"], "No A7: defined"),
        (LabelScale(), [0, 1, 1, 0, 1], "Two classes", ["A7"], "No A2 has0, F1 has0: every label is on one side"),
    ],
    ids=["stars", "sims", "0/1 in [-3, 3]"],
)
def test_metrics_and_classes_are_those_of_the_labels(make_run, scale, labels, classes, shown, absent):
    page = page_of(make_run(teacher=False, labels=[float(x) for x in labels], scale=scale))
    assert classes in page.headings
    assert absent in page.text
    table = re.search(r"<table>.*?</thead>", page.source)[0]
    assert ("A7" in table) == (scale == LabelScale())
    assert "has0" not in table
    joined = re.sub("<[^>]*>", "", page.source)
    assert all(text in joined for text in shown)


def test_an_evaluation_without_a_label_range_is_refused(make_run):
    path = make_run()
    document = json.loads((path / "evaluation-test.json").read_text())
    del document["labels"]
    (path / "evaluation-test.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"written by another version of vadv: labels: field required"):
        write_report(path)


def test_a_constant_student_is_reported(make_run):
    path = make_run(teacher=False)
    document = json.loads((path / "evaluation-test.json").read_text())
    document["remarks"] = ["The student predicts a constant."]
    (path / "evaluation-test.json").write_text(json.dumps(document))
    assert "The student predicts a constant" in page_of(path).text


def test_learned_weights_are_shown_from_first_to_last_epoch(make_run):
    path = make_run()
    config = yaml.safe_load((path / "config.yaml").read_text())
    config["objective"]["weighting"] = "famo"
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["kind"] == "epoch":
            line["weights"] = {"video_to_text": 0.5 - line["epoch"] / 8}
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = page_of(path)
    assert "weight ψ 0.5 → 0.25" in page.text
    assert "no α" in page.text
    assert "step distillation, weighted by famo" in page.text


def test_a_run_alone_shows_no_teacher(make_run):
    page = page_of(make_run(teacher=False))
    assert "Video logit" not in page.source
    assert "student alone" in page.text
    assert "What the teacher saw better" not in page.headings
    assert len(page.all("svg")) == 1 + 5 + 1 + 2 + 1 + 2 + 1


def test_the_page_is_self_contained_and_accessible(make_run):
    page = page_of(make_run(), compare=[make_run("alone", teacher=False)])
    assert not [attrs for _, attrs in page.elements if "src" in attrs or "srcset" in attrs or "xlink:href" in attrs]
    assert all(attrs["href"].startswith(("#", "data:")) for _, attrs in page.elements if "href" in attrs)
    assert "url(" not in page.source
    assert "@import" not in page.source
    assert page.all("script") == []
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))
    assert all("scope" in th for th in page.all("th"))
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["href"] for tag, attrs in page.elements if tag in ("a", "use")} == {f"#{name}" for name in ids}
    assert "prefers-color-scheme: dark" in page.source
    assert "nan" not in re.sub(r"<style>.*?</style>", "", page.source, flags=re.S)


def test_headline_and_metrics_are_those_of_the_evaluation(make_run):
    run = make_run()
    metrics = json.loads((run / "evaluation-test.json").read_text())
    page = page_of(run)
    assert f"From the words alone, off by {metrics['student']['mae']:.3f}" in page.text
    for reader in ("student", "video", "prompt"):
        assert f"{metrics[reader]['mae']:.3f}" in page.text
        assert f"{metrics[reader]['f1_non0']:.1%}" in page.text


def test_the_gain_is_shown_only_in_comparison_with_a_run_alone(make_run):
    taught, alone = make_run(), make_run("alone", teacher=False)
    assert "paired bootstrap" not in page_of(taught).text
    for run, other in ((taught, alone), (alone, taught)):
        text = page_of(run, compare=[other]).text
        assert "alone and" in text
        assert "with the teacher, on the same 60 test clips" in text
        assert "not the seed of training" in text


def test_text_of_a_clip_cannot_become_markup(make_run):
    evil = '<script>alert("1")</script><img src=x onerror=alert(1)>&amp;\u2028'
    run = make_run(clips=30, texts=[evil] * 30, source="<b>source</b>")
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("all-MiniLM-L6-v2", "</pre><script>x</script>"))
    page = page_of(run)
    assert page.all("script") == []
    assert page.all("img") == []
    assert html.escape(evil, quote=True) in page.source
    assert 'alert("1")</script>' in page.text


def test_worst_predictions_are_worst_first(make_run):
    run = make_run(clips=25, texts=[f"words of clip {i}" for i in range(25)])
    table = pq.read_table(run / "predictions-test.parquet")
    errors = [abs(a - b) for a, b in zip(table["text_logit"].to_pylist(), table["label"].to_pylist(), strict=True)]
    expected = sorted(range(25), key=lambda row: -errors[row])[:10]
    section = page_of(run).source.split('id="worst"')[1].split("</section>")[0]
    assert [int(row) for row in re.findall(r"words of clip (\d+)", section)] == expected


def test_the_page_of_an_unevaluated_run_contains_the_command(make_run):
    run = make_run(split=None, ended=False)
    page = page_of(run)
    assert page.headings == ["Training", "Run"]
    assert f"vadv evaluate {run} --split test" in page.text
    assert "is not complete" in page.text


def test_validation_scores_are_labelled_as_such(make_run):
    text = page_of(make_run(split="valid")).text
    assert "on 60 validation clips" in text
    assert "the scores are too optimistic" in text


def test_mosi_is_compared_with_the_paper(make_run):
    text = page_of(make_run(source="cmu_mosi", data_rows={"train": 1447, "test": 752})).text
    assert "VideoAdviser Table 2 0.568 0.872 51.3% 87.7% 87.9%" in text
    assert "The splits differ: 1 447 / 0 / 752 clips (train / valid / test) here, 1 284 / 229 / 686" in text
    assert "The student’s encoder is sentence-transformers/all-MiniLM-L6-v2" in text


@pytest.mark.parametrize("arguments", [{"source": "cmu_mosei"}, {"source": "mosi", "split": "valid"}])
def test_other_data_is_not_compared_with_the_paper(make_run, arguments):
    assert "Compared with the paper" not in page_of(make_run(**arguments)).text


def test_mosi_among_other_sources_is_compared_by_its_own_metrics(make_run):
    run = make_run(clips=80)
    evaluation = json.loads((run / "evaluation-test.json").read_text())
    evaluation["sources"] = {
        "cmu_mosei": evaluation["sources"]["synth"],
        "cmu_mosi": {"rows": 9, "student": {"mae": 0.4321}},
    }
    (run / "evaluation-test.json").write_text(json.dumps(evaluation))
    page = page_of(run)
    assert "This run, with teacher – 0.432 –" in page.text
    assert "By source" in page.headings


def test_each_of_several_sources_has_a_table_with_its_clips(make_run):
    run = make_run(clips=80)
    table = pq.read_table(run / "predictions-test.parquet")
    names = pa.array(["first"] * 30 + ["second"] * 50)
    table = table.set_column(table.column_names.index("source"), "source", names)
    pq.write_table(table, run / "predictions-test.parquet")
    evaluation = json.loads((run / "evaluation-test.json").read_text())
    evaluation["sources"] = {
        name: {"rows": rows, "student": {"mae": mae}}
        for name, rows, mae in (("first", 30, 0.1234), ("second", 50, 0.5678))
    }
    (run / "evaluation-test.json").write_text(json.dumps(evaluation))
    text = page_of(run).text
    first, second = text.index("first · 30 test clips"), text.index("second · 50 test clips")
    assert "0.123" in text[first:second]
    assert "0.568" in text[second : second + 300]
    assert "By source" not in page_of(make_run("single")).headings


def test_synthetic_data_shows_the_best_possible_score(make_run, tmp_path, monkeypatch):
    run = make_run()
    monkeypatch.chdir(tmp_path)
    document = {"fingerprint": "5f0c" * 16, "truth": {"best_mae": {"text": {"mae": 0.4567}}}}
    (tmp_path / "data" / "made").mkdir(parents=True)
    (tmp_path / "data" / "made" / "dataset.json").write_text(json.dumps(document))
    assert "Best from text 0.457" in page_of(run).text
    # Another data set at the same place tells nothing of this run.
    (tmp_path / "data" / "made" / "dataset.json").write_text(json.dumps(document | {"fingerprint": "0"}))
    assert "Best from" not in page_of(run).text


def test_plots_of_an_output_leave_out_clips_without_a_prediction(make_run):
    run = make_run(clips=12)
    path = run / "predictions-test.parquet"
    table = pq.read_table(path)
    gaps = [None] * 5 + table["video_logit"].to_pylist()[5:]
    place = table.column_names.index("video_logit")
    pq.write_table(table.set_column(place, "video_logit", pa.array(gaps, pa.float32())), path)
    page = page_of(run)
    labels = [svg["aria-label"] for svg in page.all("svg")]
    assert any(label.startswith("Video logit against label for 7 clips") for label in labels)
    assert "nan" not in page.text


def test_a_run_that_has_just_started_can_be_shown(make_run):
    run = make_run(clips=1, ended=False)
    first = {"kind": "step", "step": 1, "epoch": 0, "text_regression": 2.5, "total": 25.0, "lr": 0.0}
    lines = [json.dumps(whole(line)) for line in ({"kind": "start"}, first)]
    (run / "metrics.jsonl").write_text("\n".join([*lines, '{"kind": "st']), encoding="utf-8")
    page = page_of(run)
    assert "Corr –" in page.text  # one clip has no correlation
    assert "on 1 test clip" in page.text
    assert "nan" not in page.text
    assert "All clips have the same number of words" in page.text
    assert "There are fewer than 20 clips" in page.text
    assert "the clips are of one video, or their videos are unknown" in page.text


def test_many_points_are_drawn_as_a_sample(make_run, monkeypatch):
    monkeypatch.setattr("vadv_dist.reporting.figures.MAX_POINTS", 20)
    page = page_of(make_run())
    assert "a sample of 20" in page.text


def test_the_same_files_give_the_same_page_and_pictures(make_run):
    run = make_run(teacher=False, epochs=1)

    def written():
        write_report(run)
        return {path.name: path.read_bytes() for path in (run / "report.html", *(run / "figures").iterdir())}

    first = written()
    assert {"report.html", "validation.png", "validation.pdf", "classes-student.pdf"} <= first.keys()
    assert all(
        first[name].startswith(b"%PDF" if name.endswith("pdf") else b"\x89PNG")
        for name in first.keys() - {"report.html"}
    )
    assert written() == first


def test_a_page_of_a_hundred_epochs_is_small(make_run):
    assert len(page_of(make_run(epochs=100, clips=100)).source.encode()) < 230_000


def test_no_page_is_written_if_a_run_to_compare_with_is_missing(make_run, tmp_path):
    run = make_run()
    with pytest.raises(UserError, match="does not exist"):
        write_report(run, compare=[tmp_path / "nowhere"])
    assert not list(run.glob("*report*"))


def test_importing_the_report_loads_nothing_heavy():
    heavy = "{'pyarrow', 'torch', 'matplotlib', 'rich', 'scipy', 'ray'}"
    code = (
        "import sys, vadv_dist.reporting.report, vadv_dist.reporting.terminal\n"
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
