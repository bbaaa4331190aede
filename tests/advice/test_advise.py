"""`vadv advise` on made data of known truth, what it reads, and what it refuses."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import entropy
from transformers import AutoConfig, AutoModel, AutoTokenizer

from vadv_dist.advice import advise, probed_clips
from vadv_dist.advice.probed_clips import read_clips
from vadv_dist.advice.result import judge
from vadv_dist.cli.command import main
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.schema import Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.data.synth import make_dataset, make_retrieval_dataset
from vadv_dist.data.synth.model import GenerativeModel, latent_shares
from vadv_dist.data.synth.truth import mutual_informations
from vadv_dist.errors import UserError
from vadv_dist.evaluation.complementarity import Complementarity
from vadv_dist.evaluation.paired import Interval
from vadv_dist.models.frozen_text import FrozenText


def make(place: Path, **parameters) -> Path:
    make_dataset(place, **{"num_clips": 1000, "seed": 1, "s_annot": 2.0, **parameters})
    return place


def test_exact_informations_of_made_data() -> None:
    video, label = mutual_informations(GenerativeModel(s_annot=2.0))
    assert (video, label) == pytest.approx((0.758, 0.470), abs=1e-3)
    # A perfect video is the latent itself: I = H(level) - H(level | latent).
    perfect = GenerativeModel(s_video=1e-3, s_frame=1e-3)
    level_UZ, latent_Z = perfect.level_given_latent(), latent_shares()
    expected = entropy(level_UZ @ latent_Z) - entropy(level_UZ) @ latent_Z
    assert mutual_informations(perfect)[0] == pytest.approx(expected, abs=1e-3)
    assert mutual_informations(GenerativeModel(informative_video=False))[0] == 0


@pytest.mark.parametrize(
    ("parameters", "verdict", "reason"),
    [
        (
            {"num_clips": 1600},
            "likely helps",
            "A teacher gives a clearer target than the label",
        ),
        ({"informative_video": False}, "unlikely", "The video adds nothing to the text"),
        ({"s_annot": 0.8, "s_video": 2.0, "num_clips": 1600}, "unlikely", "hardly makes a clearer target"),
        ({"num_clips": 400, "s_annot": 1.2}, "not enough data", "The intervals do not decide"),
        ({"num_clips": 120}, "not enough data", "There are .* clips of .* videos to probe, expected 100 clips of 10"),
    ],
)
@pytest.mark.slow
def test_answers_on_made_data(parameters, verdict, reason, tmp_path: Path, capsys) -> None:
    place = make(tmp_path / "data", **parameters)
    assert main(["advise", str(place), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == verdict
    assert re.search(reason, " ".join(found["why"]))
    assert found["clips"] == sum(Dataset.open(place).manifest.rows(split) for split in ("train", "valid"))
    if found["probes"]:
        assert found["probes"].keys() == {"text", "video", "both"}
        assert found["complementarity"]["clearer_target"].keys() == {"mean", "low", "high"}


def test_a_person_reads_the_answer_its_reasons_and_what_was_read(tmp_path: Path, capsys) -> None:
    place = make(tmp_path / "data", num_clips=400, s_annot=1.2)
    assert main(["advise", str(place)]) == 0
    first, why, information, *probes, last = capsys.readouterr().out.splitlines()
    assert first == f"not enough data: a teacher that sees visual and face, a student that reads text, on {place}"
    assert why.startswith("  The intervals do not decide: the best mixture")
    assert information.startswith("  I(video; text) is ")
    assert [line.split()[2] for line in probes] == ["text", "video", "both"]
    assert "clips of" in last
    assert "words and pairs of words" in last


def test_verdict_needs_both_intervals() -> None:
    def verdict(clearer: tuple[float, float, float], gain: tuple[float, float, float]) -> str:
        return judge(Complementarity(0.3, 0.2, Interval(0.1, 0.0, 0.2), Interval(*gain), Interval(*clearer)))[0]

    above, around, below = (0.1, 0.07, 0.15), (0.1, 0.03, 0.15), (0.02, 0.0, 0.04)
    assert verdict(above, above) == "likely helps"
    assert verdict(below, above) == "unlikely"
    assert verdict(above, (0.0, -0.01, 0.01)) == "unlikely"
    assert verdict(around, above) == verdict(above, (0.1, -0.03, 0.15)) == "not enough data"


def test_test_clips_are_not_read_and_a_sample_is_stated(tmp_path: Path) -> None:
    place = make(tmp_path / "data", num_clips=400, shard_rows=64)
    dataset = Dataset.open(place)
    for shard in dataset.split("test"):
        dataset.shard_path(shard).unlink()
    found = advise(place, max_clips=200)
    assert (found.clips, found.available) == (200, dataset.manifest.rows("train") + dataset.manifest.rows("valid"))
    again = advise(place, max_clips=200)
    assert again == found


def test_features_are_means_and_clips_without_one_are_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    visual, face = rng.normal(size=(6, 2, 3, 4)).astype(np.float32), rng.normal(size=(6, 5, 2)).astype(np.float32)
    features = {"visual": FeatureSpec((2, 3, 4), "float32"), "face": FeatureSpec((5, 2), "float32")}
    with DatasetWriter(tmp_path / "d", features=features, label=LabelSpec(), provenance={}, shard_rows=4) as writer:
        for i in range(6):
            values = {"visual": visual[i], "face": None if i == 1 else face[i]}
            writer.write("train", Clip(f"c{i}", f"v{i // 2}", f"text {i}", i / 2, "made", values))
    found = read_clips(Dataset.open(tmp_path / "d"), ("visual", "face"), max_clips=10, seed=1)
    kept = [0, 2, 3, 4, 5]
    assert (found.text, found.lacking, found.available) == ([f"text {i}" for i in kept], 1, 6)
    expected = np.concatenate([visual.mean(axis=(1, 2)), face.mean(axis=1)], axis=1)[kept]
    np.testing.assert_allclose(found.features, expected, rtol=1e-5)
    assert found.label.tolist() == [i / 2 for i in kept]
    assert probed_clips.SPLITS == ("train", "valid")


@pytest.mark.slow
@pytest.mark.parametrize(("informative", "verdict"), [(True, "likely helps"), (False, "unlikely")])
def test_classes_get_an_answer_too(informative: bool, verdict: str, tmp_path: Path, capsys) -> None:
    place = make(tmp_path / "data", num_clips=1600, num_classes=3, informative_video=informative)
    assert main(["advise", str(place)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(verdict)
    assert re.search(r"probe on text +wrong class \d+\.\d%, R² 0\.\d+", said)


def test_two_classes_are_a_label_of_0_and_1(tmp_path: Path) -> None:
    as_classes = make(tmp_path / "classes", num_clips=500, num_classes=2)
    rows = Dataset.open(as_classes)
    features, by_split = rows.manifest.features, {}
    for split in ("train", "valid"):
        table = pa.concat_tables(pq.read_table(rows.shard_path(shard)) for shard in rows.split(split))
        by_split[split] = table.to_pylist()
    shape = {name: spec.shape for name, spec in features.items()}
    numbers = LabelSpec(0.0, 1.0)
    with DatasetWriter(tmp_path / "numbers", features=features, label=numbers, provenance={}) as writer:
        for split, clips in by_split.items():
            for clip in clips:
                values = {
                    name: None if clip[name] is None else np.asarray(clip[name], np.float16).reshape(of)
                    for name, of in shape.items()
                }
                writer.write(
                    split, Clip(clip["clip_id"], clip["video_id"], clip["text"], clip["label"], "made", values)
                )
    found, expected = advise(as_classes), advise(tmp_path / "numbers")
    assert found.complementarity is not None
    assert expected.complementarity is not None
    for name in ("difference", "gain", "clearer_target"):
        assert getattr(found.complementarity, name) == pytest.approx(getattr(expected.complementarity, name), abs=1e-9)
    assert found.probes["video"].r2 == pytest.approx(expected.probes["video"].r2)
    assert found.verdict == expected.verdict


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """The encoder of made data, with random weights."""
    make(tmp_path / "made", num_clips=12)
    folder = tmp_path / "made" / "encoder"
    AutoModel.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    return folder


def test_frozen_embeddings_do_not_depend_on_the_batch(encoder: Path) -> None:
    texts = ["the movie was superb", "um", "i saw it with my sister and the acting was not great"]
    frozen = FrozenText(str(encoder))
    one_by_one = np.concatenate([batch.means() for batch in frozen.embed(texts, batch_size=1)])
    together = np.concatenate([batch.means() for batch in frozen.embed(texts)])
    np.testing.assert_allclose(one_by_one, together, atol=1e-5)
    states = next(iter(frozen.embed(texts[:1]))).states
    assert states.shape == (1, len(AutoTokenizer.from_pretrained(encoder)(texts[0])["input_ids"]), frozen.width)
    np.testing.assert_allclose(one_by_one[0], states[0].mean(axis=0), atol=1e-5)


def test_an_encoder_represents_the_text(encoder: Path, tmp_path: Path) -> None:
    place = make(tmp_path / "data", num_clips=400)
    found = advise(place, encoder=str(encoder))
    assert found.text == f"mean token embeddings of {encoder}"
    assert found.probes["text"] != advise(place).probes["text"]
    assert found.probes["video"] == advise(place).probes["video"]


def test_bad_input_is_refused_with_one_message(tmp_path: Path, capsys) -> None:
    make_retrieval_dataset(tmp_path / "classes", num_clips=60, num_classes=3)
    with DatasetWriter(tmp_path / "words", features={}, label=LabelSpec(), provenance={}) as writer:
        writer.write("train", Clip("c", "v", "text", 1.0, "made", {}))
    place = make(tmp_path / "data", num_clips=30)
    cases = [
        ([str(tmp_path / "classes")], "have no words"),
        ([str(tmp_path / "words")], "has no visual and no face features (it has: words only)"),
        ([str(place), "--features", "visual,smell"], "has no smell features (it has: visual, face)"),
        ([str(place), "--max-clips", "5"], "--max-clips is 5, expected at least 100"),
        ([str(place / "none")], "none"),
    ]
    for arguments, message in cases:
        assert main(["advise", *arguments]) == UserError.exit_code
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    with DatasetWriter(
        tmp_path / "dots", features={"face": FeatureSpec((1, 2))}, label=LabelSpec(), provenance={}
    ) as w:
        w.write("train", Clip("c", "v", "...", 1.0, "made", {"face": np.zeros((1, 2), np.float16)}))
    with pytest.raises(UserError, match="have no words"):
        advise(tmp_path / "dots")
