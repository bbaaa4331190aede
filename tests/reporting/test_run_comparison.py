import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from vadv_dist.errors import UserError
from vadv_dist.reporting.comparison import compare_runs
from vadv_dist.reporting.report import write_report


def errors_of(run):
    table = pq.read_table(run / "predictions-test.parquet")
    return np.abs(pc.subtract(table["text_logit"], table["label"]).to_numpy())


@pytest.fixture
def pair(make_run):
    return make_run("alone", teacher=False, noise=1.2, clips=200), make_run("taught", noise=0.3, clips=200)


def test_the_gain_is_described_in_words_and_numbers(pair):
    comparison = compare_runs(*pair)
    before, after = (errors_of(run).mean() for run in pair)
    assert comparison.gain.mean == pytest.approx(before - after, abs=1e-6)
    assert comparison.gain.low > 0
    assert comparison.sentence == (
        f"The student’s MAE is {before:.3f} alone and {after:.3f} with the teacher, on the same 200 test clips: "
        f"{before - after:.3f} better (paired bootstrap 95 % interval {comparison.gain.low:.3f} … "
        f"{comparison.gain.high:.3f})."
    )
    assert "not the seed of training" in comparison.caveat
    assert "contains zero" not in comparison.caveat


def test_a_larger_error_is_called_worse(pair):
    comparison = compare_runs(pair[1], pair[0])
    assert " in taught and " in comparison.sentence
    gain = comparison.gain
    # Size and interval are both those of the loss.
    assert f" {-gain.mean:.3f} worse (paired bootstrap 95 % interval {-gain.high:.3f} … {-gain.low:.3f})" in (
        comparison.sentence
    )


def test_a_caveat_says_if_there_is_no_clear_difference(make_run):
    comparison = compare_runs(make_run("alone", teacher=False), make_run("taught"))
    assert not comparison.gain.excludes_zero
    assert comparison.caveat.startswith("The interval contains zero")


def test_the_order_of_clips_does_not_matter(pair):
    straight = compare_runs(*pair)
    path = pair[0] / "predictions-test.parquet"
    table = pq.read_table(path)
    pq.write_table(table.take(np.random.default_rng(0).permutation(len(table))), path)
    # The resamples are of the clips in the first run's order, so only the interval's noise may change.
    shuffled = compare_runs(*pair)
    assert shuffled.gain.mean == pytest.approx(straight.gain.mean, abs=1e-12)
    assert shuffled.gain.low == pytest.approx(straight.gain.low, abs=0.02)


def test_other_differences_of_the_runs_are_named(pair):
    assert compare_runs(*pair).differing == []
    config = pair[0] / "config.yaml"
    config.write_text(config.read_text().replace("seed: 1", "seed: 2"))
    assert compare_runs(*pair).differing == ["run.seed"]


def test_runs_on_other_clips_are_not_compared(pair):
    path = pair[0] / "predictions-test.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    with pytest.raises(UserError, match="were not evaluated on the same clips of the test split: 1 clip differ"):
        compare_runs(*pair)


def test_duplicate_clips_are_refused(pair):
    path = pair[0] / "predictions-test.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, "clip_id", pc.utf8_slice_codeunits(table["clip_id"], 0, 3)), path)
    with pytest.raises(UserError, match="several predictions for 199 clips of the test split"):
        compare_runs(*pair)


def test_the_error_for_an_unevaluated_run_contains_the_command(make_run):
    alone, taught = make_run("alone", teacher=False, split="valid"), make_run("taught")
    with pytest.raises(UserError, match=r"Evaluate it: vadv evaluate .*alone --split test\."):
        compare_runs(alone, taught)


def test_runs_with_the_same_name_are_shown_with_their_folders(make_run, tmp_path):
    mine, theirs = make_run("mine/run"), make_run("theirs/run")
    page = write_report(mine, compare=[theirs]).read_text()
    assert f"in {theirs}" in page
    assert f"in {mine}" in page
