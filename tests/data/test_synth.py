"""Synthetic data: the random model, its words, its computed truth, and the files."""

import csv
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from ideal_reader import estimate_latent, estimate_likelihood, posterior_medians, read_level
from safetensors.numpy import load_file

from vadv_dist.data.dataset import Dataset
from vadv_dist.data.schema import SPLITS
from vadv_dist.data.synth import GenerativeModel, make_dataset
from vadv_dist.data.synth.classes import classes_of
from vadv_dist.data.synth.grammar import draw_word_counts, render, vocabulary
from vadv_dist.data.synth.model import GRID, LEVELS, latent_shares
from vadv_dist.data.synth.truth import (
    annotator_metrics,
    best_accuracies,
    best_class_accuracies,
    best_errors,
    truth_document,
)
from vadv_dist.data.synth.words import (
    ASIDES,
    DEEDS,
    DOWNTONERS,
    INTENSIFIERS,
    NEGATIONS,
    OPENINGS,
    OPINION_WORDS,
    PEOPLE,
    PLACES,
)
from vadv_dist.errors import UserError
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.storage import sha256_file

MOSI = Path(__file__).parents[3] / "shared/data/cmu_mosi/mosi_segments.csv"
NUM_CLIPS = 5000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("synth") / "data", num_clips=NUM_CLIPS, seed=3)


def rows(dataset: Dataset) -> dict[str, list]:
    """All clips of a data set as columns."""
    columns: dict[str, list] = {}
    for split in SPLITS:
        for shard in dataset.split(split):
            table = pq.read_table(dataset.shard_path(shard))
            for name in ("clip_id", "video_id", "text", "label", "num_words"):
                columns.setdefault(name, []).extend(table[name].to_pylist())
            for name in ("visual", "face"):
                columns.setdefault(name, []).extend(table[name].combine_chunks().to_numpy_ndarray())
            columns.setdefault("split", []).extend([split] * shard.rows)
    return columns


def ideal_errors(dataset: Dataset, model: GenerativeModel) -> dict[str, np.ndarray]:
    """Absolute errors per clip of readers that know the random model."""
    clips = rows(dataset)
    label_R = np.array(clips["label"])
    level_R = np.array([read_level(text) for text in clips["text"]])
    text_RZ = model.level_given_latent()[np.searchsorted(LEVELS, level_R)]
    video_RZ = estimate_likelihood(estimate_latent(model, np.stack(clips["visual"]), np.stack(clips["face"])), model)
    seen = {
        "constant": np.ones((len(label_R), len(GRID))),
        "text": text_RZ,
        "video": video_RZ,
        "text_and_video": text_RZ * video_RZ,
    }
    return {name: np.abs(posterior_medians(seen_RZ, model) - label_R) for name, seen_RZ in seen.items()}


def test_tables_of_the_random_model_are_distributions() -> None:
    model = GenerativeModel()
    np.testing.assert_allclose(model.label_given_latent().sum(axis=0), 1, atol=1e-12)
    np.testing.assert_allclose(model.level_given_latent().sum(axis=0), 1, atol=1e-12)
    assert latent_shares().sum() == pytest.approx(1)


def test_noise_must_be_positive() -> None:
    with pytest.raises(UserError, match=r"s_text is 0\.0, expected a positive"):
        GenerativeModel(s_text=0.0)


def test_label_table_agrees_with_drawn_labels() -> None:
    model = GenerativeModel()
    latent_R = np.full(40_000, 1.6)
    label_R = model.draw_labels(np.random.default_rng(0), latent_R)
    drawn_Y = np.array([(np.abs(label_R - y) < 1e-9).mean() for y in GRID])
    assert drawn_Y.sum() == pytest.approx(1)
    np.testing.assert_allclose(drawn_Y, model.label_given_latent()[:, np.flatnonzero(GRID == 1.6)[0]], atol=0.01)


@pytest.mark.parametrize("informative", [True, False])
def test_recorded_errors_match_an_ideal_reader(informative: bool, made: Dataset, tmp_path: Path) -> None:
    model = GenerativeModel(informative_video=informative)
    dataset = made if informative else make_dataset(tmp_path / "d", num_clips=2500, seed=4, informative_video=False)
    assert dataset.manifest.truth is not None
    stated = dataset.manifest.truth["best_mae"]
    for name, errors in ideal_errors(dataset, model).items():
        sampling_error = errors.std() / np.sqrt(len(errors))
        assert abs(errors.mean() - stated[name]["mae"]) < 4 * sampling_error, name
        assert sampling_error < 0.02


def test_best_errors_fall_with_more_input() -> None:
    best = best_errors(GenerativeModel())
    assert best["latent"] < best["text_and_video"] < best["video"] < best["text"] < best["constant"]
    assert best["text"] - best["text_and_video"] > 0.1


@pytest.mark.parametrize("s_annot", [0.8, 1.5])
def test_recorded_annotator_metrics_match_a_drawn_annotator(s_annot: float) -> None:
    model, rng = GenerativeModel(s_annot=s_annot), np.random.default_rng(0)
    latent_R = model.draw_latents(rng, 200_000)
    label_R = model.draw_labels(rng, latent_R)
    score_R = np.rint(np.clip(latent_R + rng.normal(0, s_annot, len(latent_R)), -3, 3))
    drawn = LabelScale().score(score_R, label_R)
    stated = annotator_metrics(model)
    assert stated == pytest.approx({name: drawn[name] for name in stated}, abs=0.006)


def test_an_annotator_with_default_noise_matches_a_human_on_mosi() -> None:
    metrics = annotator_metrics(GenerativeModel())
    assert metrics["mae"] == pytest.approx(0.71, abs=0.005)  # Table 2, "Human"
    assert metrics["a2_has0"] == pytest.approx(0.857, abs=0.01)
    assert metrics["corr"] == pytest.approx(0.82, abs=0.05)


def test_best_accuracy_uses_the_likelier_sign() -> None:
    model, rng = GenerativeModel(s_video=6.0), np.random.default_rng(0)
    latent_R = model.draw_latents(rng, 200_000)
    positive_R = model.draw_labels(rng, latent_R) >= 0
    estimate_R = latent_R + rng.normal(0, np.sqrt(model.video_variance), len(latent_R))
    likelihood_RZ = estimate_likelihood(estimate_R, model) * latent_shares()
    share_R = (likelihood_RZ @ model.label_given_latent().T[:, GRID >= 0]).sum(axis=1) / likelihood_RZ.sum(axis=1)
    best = best_accuracies(model)
    assert best["video"] == pytest.approx(((share_R > 0.5) == positive_R).mean(), abs=0.005)
    assert best["constant"] < best["video"] < best["text"] <= best["text_and_video"] < best["latent"]
    assert 0.60 < best["video"] < 0.63  # a weak video; the paper's teacher alone has 57 %


def test_data_sets_that_differ_only_in_video_share_words_and_labels(tmp_path: Path) -> None:
    options: tuple[dict, ...] = ({}, {"s_video": 6.0}, {"informative_video": False})
    strong, weak, idle = (
        rows(make_dataset(tmp_path / str(n), num_clips=60, seed=1, **given)) for n, given in enumerate(options)
    )
    for name in ("clip_id", "text", "label", "split"):
        assert strong[name] == weak[name] == idle[name]
    assert not np.array_equal(strong["visual"], weak["visual"])
    assert not np.array_equal(strong["visual"], idle["visual"])


def test_audio_is_a_further_cue_and_changes_nothing_else(tmp_path: Path) -> None:
    plain = make_dataset(tmp_path / "plain", num_clips=60, seed=1)
    heard = make_dataset(tmp_path / "heard", num_clips=60, seed=1, audio_shape=(20, 12))
    one, other = rows(plain), rows(heard)
    for name in ("clip_id", "text", "label", "split"):
        assert one[name] == other[name]
    for name in ("visual", "face"):
        np.testing.assert_array_equal(one[name], other[name])
    clips = list(heard.clips("train"))
    audio = np.stack([np.asarray(clip.features["audio"], np.float64) for clip in clips])
    assert audio.shape[1:] == (20, 12)
    label = np.array([clip.label for clip in clips])
    ridge = audio.mean(axis=1) - audio.mean(axis=(0, 1))
    weights = np.linalg.solve(ridge.T @ ridge + np.eye(12), ridge.T @ (label - label.mean()))
    assert np.corrcoef(ridge @ weights, label)[0, 1] > 0.7
    with_audio, without = (best_errors(GenerativeModel(audio_shape=shape)) for shape in ((20, 12), None))
    assert with_audio["video"] < without["video"]
    assert with_audio["text"] == without["text"]


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_best_accuracy_of_classes_is_reached_by_a_reader_of_the_latent(classes: int) -> None:
    model = GenerativeModel()
    rng = np.random.default_rng(1)
    latent_R = model.draw_latents(rng, 100_000)
    class_R = classes_of(model.draw_labels(rng, latent_R), classes)
    likeliest = {z: np.bincount(class_R[latent_R == z]).argmax() for z in GRID}
    reached = np.mean([likeliest[z] == one for z, one in zip(latent_R, class_R, strict=True)])
    best = best_class_accuracies(model, classes)
    assert best["latent"] == pytest.approx(reached, abs=0.005)
    assert best["constant"] == pytest.approx(np.bincount(class_R).max() / len(class_R), abs=0.005)
    assert best["constant"] < best["text"] < best["text_and_video"] < best["latent"]


def test_two_classes_are_the_two_signs_and_share_everything_else(tmp_path: Path) -> None:
    numbers = make_dataset(tmp_path / "numbers", num_clips=60, seed=4)
    signs = make_dataset(tmp_path / "signs", num_clips=60, seed=4, num_classes=2)
    (first, second) = rows(numbers), rows(signs)
    assert first["text"] == second["text"]
    assert [value >= 0 for value in first["label"]] == [value == 1 for value in second["label"]]
    assert signs.manifest.label.classes == ("negative", "positive")
    assert best_class_accuracies(GenerativeModel(), 2) == pytest.approx(best_accuracies(GenerativeModel()))
    np.testing.assert_array_equal(*(load_file(d.prompts_path)["prompts"] for d in (numbers, signs)))
    with pytest.raises(UserError, match="--classes is 8, expected a number from 2 to 7"):
        make_dataset(tmp_path / "many", num_clips=60, num_classes=8)
    assert not (tmp_path / "many").exists()


def test_uninformative_video_adds_nothing_to_the_best_errors() -> None:
    informative, not_informative = (best_errors(GenerativeModel(informative_video=flag)) for flag in (True, False))
    assert not_informative["video"] == not_informative["constant"]
    assert not_informative["text_and_video"] == not_informative["text"] == informative["text"]


def test_best_errors_approach_the_annotators_noise_as_video_becomes_exact() -> None:
    best = best_errors(GenerativeModel(s_video=0.01, s_frame=0.01))
    assert best["video"] == pytest.approx(best["latent"], abs=1e-3)


def test_uninformative_features_have_the_same_spread_and_no_correlation(tmp_path: Path, made: Dataset) -> None:
    idle = make_dataset(tmp_path / "d", num_clips=2500, seed=3, informative_video=False)
    spreads, correlations = [], []
    for dataset in (made, idle):
        clips = rows(dataset)
        estimate_R = estimate_latent(GenerativeModel(), np.stack(clips["visual"]), np.stack(clips["face"]))
        spreads.append(estimate_R.std())
        correlations.append(np.corrcoef(estimate_R, clips["label"])[0, 1])
    assert spreads[0] == pytest.approx(spreads[1], rel=0.05)
    assert correlations[0] > 0.8
    assert abs(correlations[1]) < 0.08


def test_same_seed_gives_identical_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    first, again, other = (
        make_dataset(tmp_path / name, num_clips=60, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first.manifest.fingerprint == again.manifest.fingerprint != other.manifest.fingerprint
    for name in ("prompts.safetensors", "encoder/config.json", "encoder/tokenizer.json"):
        assert sha256_file(first.root / name) == sha256_file(again.root / name)


def test_chunks_do_not_affect_ids_or_splits(made: Dataset) -> None:
    clips = rows(made)  # more clips than one chunk
    assert len(clips["clip_id"]) == len(set(clips["clip_id"])) == NUM_CLIPS
    splits_of_video: dict[str, set[str]] = {}
    for video, split in zip(clips["video_id"], clips["split"], strict=True):
        splits_of_video.setdefault(video, set()).add(split)
    assert all(len(splits) == 1 for splits in splits_of_video.values())
    assert len(splits_of_video) == round(NUM_CLIPS / 24)


@pytest.mark.parametrize("num_clips", [12, 13, 40, 400, 2199])
def test_splits_have_about_the_shares_of_mosi(tmp_path: Path, num_clips: int) -> None:
    manifest = make_dataset(tmp_path / "d", num_clips=num_clips, seed=1).manifest
    counts = {split: manifest.rows(split) for split in SPLITS}
    assert sum(counts.values()) == num_clips
    assert min(counts.values()) >= 1
    assert counts["train"] >= counts["test"] >= counts["valid"]
    if num_clips >= 400:
        np.testing.assert_allclose([counts[s] / num_clips for s in SPLITS], [0.59, 0.10, 0.31], atol=0.03)


def test_word_counts_follow_mosi(made: Dataset) -> None:
    counts = np.array(rows(made)["num_words"])
    quantiles = np.quantile(counts, [0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99])
    np.testing.assert_allclose(quantiles[:-1], [4, 7, 10, 16, 23, 28], atol=1)
    assert quantiles[-1] == pytest.approx(45, abs=6)
    assert counts.max() <= 100


def test_every_level_can_be_read_from_its_words_at_every_length() -> None:
    rng = np.random.default_rng(0)
    for half in OPINION_WORDS:
        for num_words in (1, 2, 3, 4, 5, 9, 16, 40, 100):
            for _ in range(10):
                text = render(rng, half, num_words)
                assert len(text.split()) == num_words
                assert read_level(text) == half / 2
                assert text.replace(" ", "").isalpha()
                assert text == text.lower()


def test_the_reader_refuses_a_text_without_a_unique_level() -> None:
    with pytest.raises(ValueError, match="found \\[\\]"):
        read_level("i saw it yesterday")
    with pytest.raises(ValueError, match="found \\[-5, 2\\]"):
        read_level("it was good it was horrible")
    assert read_level("it was not bad") == 1.0
    assert read_level("it was really good") == 1.5
    assert read_level("it was quite horrible") == -2.0


def test_words_of_opinion_modifiers_and_neutral_phrases_are_disjoint() -> None:
    opinion = [word for words in OPINION_WORDS.values() for word in words]
    modifiers = [*INTENSIFIERS, *DOWNTONERS, *NEGATIONS]
    neutral = {word for phrase in (*ASIDES, *PEOPLE, *DEEDS, *PLACES, *OPENINGS) for word in phrase.split()}
    assert len(opinion) == len(set(opinion)) >= 250
    assert all(15 <= len(words) <= 25 for words in OPINION_WORDS.values())
    for one, other in combinations((set(opinion), set(modifiers), neutral), 2):
        assert not one & other


def test_word_counts_depend_only_on_the_generator() -> None:
    assert draw_word_counts(np.random.default_rng(1), 50) == draw_word_counts(np.random.default_rng(1), 50)


def test_prompts_are_negative_then_positive_along_the_cue(made: Dataset) -> None:
    prompts = load_file(made.prompts_path)["prompts"]
    assert prompts.shape == (2, 32)
    assert prompts.dtype == np.float32
    clips = rows(made)
    frame_R = np.stack(clips["visual"]).astype(np.float32).mean(axis=(1, 2))
    closer_to_positive_R = frame_R @ (prompts[1] - prompts[0])
    assert np.corrcoef(closer_to_positive_R, clips["label"])[0, 1] > 0.7


def test_the_encoder_knows_every_word_and_loads_offline(made: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import AutoConfig, AutoTokenizer

    folder = made.root / "encoder"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = AutoConfig.from_pretrained(folder)
    assert config.model_type == "bert"
    assert config.vocab_size == len(tokenizer) == len(vocabulary()) + 5
    longest = max(rows(made)["text"], key=lambda text: len(text.split()))
    ids = tokenizer(longest).input_ids
    assert tokenizer.unk_token_id not in ids
    assert len(ids) == len(longest.split()) + 2 <= config.max_position_embeddings
    assert tokenizer("It was SUPERB").input_ids == tokenizer("it was superb").input_ids
    assert tokenizer("it was zzz!").input_ids[3:5] == [tokenizer.unk_token_id] * 2
    assert tokenizer(["good", "it was good"], padding=True).attention_mask == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_clips": 11}, "--num-clips is 11, expected at least 12"),
        ({"num_clips": 20, "seed": -1}, "--seed is -1"),
        ({"num_clips": 20, "s_video": float("nan")}, "s_video \\(--video-noise\\) is nan"),
        ({"num_clips": 20, "s_annot": -1.0}, "s_annot \\(--annotator-noise\\) is -1.0"),
        ({"num_clips": 20, "visual_shape": (8, 0, 32)}, "visual_shape is \\[8, 0, 32\\]"),
    ],
)
def test_invalid_options_are_refused_and_leave_nothing_behind(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_dataset(tmp_path / "d", **options)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_data_set_is_not_overwritten(tmp_path: Path) -> None:
    first = make_dataset(tmp_path / "d", num_clips=20)
    with pytest.raises(UserError, match="already exists"):
        make_dataset(tmp_path / "d", num_clips=20)
    assert Dataset.open(tmp_path / "d").manifest.fingerprint == first.manifest.fingerprint


def test_generating_data_imports_no_torch() -> None:
    code = "import sys, vadv_dist.data.synth; sys.exit('torch' in sys.modules or 'tokenizers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.real_data
def test_latent_follows_mosi() -> None:
    if not MOSI.is_file():
        pytest.skip(f"{MOSI.name} is not available")
    with MOSI.open(encoding="utf-8") as file:
        labels = np.array([float(row["label"]) for row in csv.DictReader(file)])
    nearest_YR = np.abs(labels - GRID[:, None])
    nearest_YR = nearest_YR < nearest_YR.min(axis=0) + 1e-6
    shares = (nearest_YR / nearest_YR.sum(axis=0)).mean(axis=1)
    assert 0.5 * np.abs(shares - latent_shares()).sum() < 0.05


def test_truth_states_how_a_human_would_score() -> None:
    assert "MAE 0.71 and A2 86.0%" in truth_document(GenerativeModel())["human"]
    assert "MAE 1.17" in truth_document(GenerativeModel(s_annot=1.5))["human"]
