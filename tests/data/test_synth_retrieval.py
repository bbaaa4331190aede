"""Synthetic retrieval data: the stated truth against ideal readers of the files, and what features say."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from vadv_dist.data.checks import check_dataset
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.schema import SPLITS, LabelSpec
from vadv_dist.data.synth import RetrievalModel, make_retrieval_dataset
from vadv_dist.data.synth.retrieval_dataset import class_names, split_of_clips
from vadv_dist.data.synth.retrieval_model import SHARED_WIDTH, draw_latents
from vadv_dist.data.synth.retrieval_truth import (
    Readings,
    draw_readings,
    mean_average_precision,
    read,
    relevance,
    relevance_with_pairs,
    truth_document,
)
from vadv_dist.errors import UserError
from vadv_dist.evaluation.retrieval import score
from vadv_dist.storage import sha256_file


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_retrieval_dataset(tmp_path_factory.mktemp("retrieval") / "data", num_clips=5000, seed=3)


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("idle") / "data"
    return make_retrieval_dataset(out, num_clips=5000, seed=3, informative_video=False)


def columns(dataset: Dataset, *splits: str) -> dict[str, Any]:
    """Clips as arrays: label [R], audio [R, D], visual [R, T, D], and names."""
    clips = [clip for split in splits for clip in dataset.clips(split)]
    return {
        "clip_id": [clip.clip_id for clip in clips],
        "label": np.array([clip.label for clip in clips], int),
        **{name: np.stack([clip.features[name] for clip in clips]).astype(np.float64) for name in ("audio", "visual")},
    }


def read_ideally(model: RetrievalModel, clips: dict[str, Any]) -> Readings:
    """Reads files with nothing but the model's parameters: projects features and finds event frames by their mark."""
    audio_basis, visual_basis = model.audio_basis(), model.visual_basis()
    heard, seen = clips["audio"] @ audio_basis, clips["visual"][:, :, 0] @ visual_basis
    classes, shared = slice(0, model.num_classes), slice(model.num_classes, model.num_classes + SHARED_WIDTH)
    contrast = None
    if model.frames_say_more:
        order = np.argsort(-seen[:, :, -1], axis=1)[..., None]
        sorted_frames = np.take_along_axis(seen[..., classes], order, axis=1)
        count = model.event_frames
        contrast = sorted_frames[:, :count].mean(axis=1) - sorted_frames[:, count:].mean(axis=1)
    mean = seen.mean(axis=1)
    return read(
        model,
        clips["label"],
        heard[:, classes],
        mean[:, classes],
        contrast,
        heard[:, shared],
        mean[:, shared],
    )


@pytest.mark.parametrize("informative", [True, False])
def test_stated_truth_matches_an_ideal_reader_of_the_test_split(
    informative: bool, made: Dataset, idle: Dataset
) -> None:
    dataset, model = (made, RetrievalModel()) if informative else (idle, RetrievalModel(informative_video=False))
    readings = read_ideally(model, columns(dataset, "test"))
    truth = dataset.manifest.truth
    assert truth is not None
    found = {
        "classes": mean_average_precision(relevance(readings.audio, readings.mean), readings.content),
        "student": mean_average_precision(relevance_with_pairs(model, readings, readings.mean), readings.content),
        "frames": mean_average_precision(relevance_with_pairs(model, readings, readings.frames), readings.content),
    }
    for name, value in found.items():  # 1,000 clips: standard error about 0.01
        assert value == pytest.approx(truth["best_map"][name]["map"], abs=0.03), name
    for name in ("audio", "mean", "frames"):
        share = (getattr(readings, name).argmax(axis=1) == readings.content).mean()
        assert share == pytest.approx(truth["best_accuracy"][name], abs=0.035), name
    assert found["student"] == pytest.approx(found["classes"], abs=0.01)  # its own clip is one of 100 relevant ones
    if informative:
        assert found["frames"] > found["student"] + 0.05
    else:
        assert found["frames"] == found["student"]


@pytest.mark.parametrize(("num_classes", "noise"), [(2, 0.3), (5, 0.1), (5, 0.001)])
def test_posteriors_equal_a_sum_over_both_classes_that_frames_show(num_classes: int, noise: float) -> None:
    model = RetrievalModel(num_classes=num_classes, s_visual=noise, s_frame=noise)
    random, codes, weight = np.random.default_rng(0), np.eye(num_classes), model.event_weight
    own, other = random.integers(num_classes, size=(2, 60))
    mean = weight * codes[own] + (1 - weight) * codes[other] + noise * random.normal(size=(60, num_classes))
    contrast = codes[own] - codes[other] + noise * random.normal(size=(60, num_classes))
    shared = np.zeros((60, SHARED_WIDTH))
    found = read(model, own, mean, mean, contrast, shared, shared)
    for row in range(60):
        log = np.empty((2, num_classes, num_classes))
        for one, two in np.ndindex(num_classes, num_classes):
            seen = weight * codes[one] + (1 - weight) * codes[two]
            log[0, one, two] = -((mean[row] - seen) ** 2).sum() / 2 / model.mean_variance
            apart = codes[one] - codes[two]
            log[1, one, two] = log[0, one, two] - ((contrast[row] - apart) ** 2).sum() / 2 / model.contrast_variance
        for posterior, each in ((found.mean[row], log[0]), (found.frames[row], log[1])):
            expected = np.exp(each - each.max()).sum(axis=1)
            np.testing.assert_allclose(posterior, expected / expected.sum(), atol=1e-9)


def test_a_thousand_classes_take_little_memory_and_time() -> None:
    model = RetrievalModel(num_classes=1000, audio_width=1009, visual_width=1010)
    readings = draw_readings(np.random.default_rng(0), model, 500)
    assert readings.frames.shape == (500, 1000)
    assert (readings.frames.argmax(axis=1) == readings.content).mean() > 0.9


def test_the_posteriors_are_calibrated() -> None:
    readings = draw_readings(np.random.default_rng(0), RetrievalModel(), 20_000)
    for posterior in (readings.audio, readings.mean, readings.frames):
        np.testing.assert_allclose(posterior.sum(axis=1), 1)
        for low in (0.1, 0.3, 0.5, 0.7):
            rows, classes = np.nonzero((posterior > low) & (posterior <= low + 0.2))
            if len(rows) > 500:
                right = (readings.content[rows] == classes).mean()
                assert right == pytest.approx(posterior[rows, classes].mean(), abs=0.035)


def test_the_probability_of_relevance_is_calibrated_with_own_pairs() -> None:
    model = RetrievalModel(s_shared=0.3, s_ambient=0.5)  # own pairs are recognised sometimes
    bins: dict[float, list[tuple[float, float]]] = {}
    for seed in range(150):
        readings = draw_readings(np.random.default_rng(seed), model, 100)
        stated = relevance_with_pairs(model, readings, readings.mean)
        same = readings.content[:, None] == readings.content
        for low in np.arange(0, 1, 0.1):
            chosen = (stated > low) & (stated <= low + 0.1)
            bins.setdefault(low, []).append((stated[chosen].sum() - same[chosen].sum(), chosen.sum()))
    for found in bins.values():
        surplus, count = np.sum(found, axis=0)
        assert abs(surplus / count) < 0.03


def test_map_agrees_with_the_metric_of_the_product() -> None:
    """Posteriors p and q as unit vectors (p, √(1 - |p|²), 0) and (q, 0, √(1 - |q|²)) have p·q as their cosine."""
    readings = draw_readings(np.random.default_rng(0), RetrievalModel(), 300)
    rests = [np.sqrt(1 - (posterior**2).sum(axis=1)) for posterior in (readings.audio, readings.mean)]
    zeros = np.zeros(300)
    audio = np.column_stack([readings.audio, rests[0], zeros])
    visual = np.column_stack([readings.mean, zeros, rests[1]])
    expected = score(np.stack([audio, visual], axis=1), readings.content)["map"]
    found = mean_average_precision(relevance(readings.audio, readings.mean), readings.content)
    assert found == pytest.approx(expected, abs=1e-4)  # the product's metric rounds cosines


def test_data_sets_that_differ_only_in_informative_video_have_the_same_labels_audio_and_mean_frames(
    made: Dataset, idle: Dataset
) -> None:
    one, other = (columns(dataset, *SPLITS) for dataset in (made, idle))
    assert one["clip_id"] == other["clip_id"]
    np.testing.assert_array_equal(one["label"], other["label"])
    np.testing.assert_array_equal(one["audio"], other["audio"])
    assert not np.allclose(one["visual"], other["visual"], atol=0.1)
    np.testing.assert_allclose(one["visual"].mean(axis=1), other["visual"].mean(axis=1), atol=2e-3)


def test_uninformative_frames_differ_from_their_mean_by_noise_alone(idle: Dataset) -> None:
    model = RetrievalModel(informative_video=False)
    frames = columns(idle, "test")["visual"][:, :, 0]
    residual = frames - frames.mean(axis=1, keepdims=True)
    assert residual.std() == pytest.approx(model.s_frame * np.sqrt(1 - 1 / model.frames), rel=0.01)
    strongest = np.linalg.svd(residual.reshape(-1, model.visual_width), compute_uv=False)
    assert strongest[0] < 1.3 * strongest[-1]  # 1.21 is expected of noise; event frames would give more than 5


def test_only_train_labels_are_wrong_and_by_the_stated_share(tmp_path: Path) -> None:
    noisy, clean = (
        make_retrieval_dataset(tmp_path / str(share), num_clips=1000, label_noise=share) for share in (0.4, 0.0)
    )
    for split in SPLITS:
        one, right = (columns(dataset, split) for dataset in (noisy, clean))
        assert one["clip_id"] == right["clip_id"]
        np.testing.assert_array_equal(one["visual"], right["visual"])
        share = (one["label"] != right["label"]).mean()
        assert share == (pytest.approx(0.4, abs=0.06) if split == "train" else 0)


def test_modalities_share_no_direction_and_differ_by_an_offset(made: Dataset) -> None:
    clips, model = columns(made, "train"), RetrievalModel()
    for name, basis in (("audio", model.audio_basis()), ("visual", model.visual_basis())):
        np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-12)
        gap = basis[:, model.num_classes + SHARED_WIDTH]
        assert clips[name].reshape(-1, len(gap)).mean(axis=0) @ gap == pytest.approx(2.0, abs=0.02)


def test_a_pair_shares_more_than_its_class(made: Dataset) -> None:
    clips, model = columns(made, "test"), RetrievalModel()
    shared = slice(model.num_classes, model.num_classes + SHARED_WIDTH)
    heard = clips["audio"] @ model.audio_basis()[:, shared]
    seen = clips["visual"][:, :, 0].mean(axis=1) @ model.visual_basis()[:, shared]
    for k in range(SHARED_WIDTH):
        assert np.corrcoef(heard[:, k], seen[:, k])[0, 1] == pytest.approx(0.865, abs=0.03)
    private = [clips["audio"] @ model.audio_basis()[:, :10], clips["visual"][:, :, 0].mean(axis=1)]
    private[1] = private[1] @ model.visual_basis()[:, :10]
    within = [values - np.eye(10)[clips["label"]] * slope for values, slope in zip(private, (1, 5 / 8), strict=True)]
    assert abs(np.corrcoef(within[0][:, 0], within[1][:, 0])[0, 1]) < 0.1  # private variation is not shared


def test_prompts_are_closest_to_event_frames_of_their_class(made: Dataset) -> None:
    prompts = load_file(made.prompts_path)["prompts"]
    assert prompts.shape == (10, 64)
    assert prompts.dtype == np.float32
    clips = columns(made, "test")
    frames = clips["visual"][:, :, 0]
    marks = frames @ RetrievalModel().visual_basis()[:, -1]
    event = np.take_along_axis(frames, np.argsort(-marks, axis=1)[:, :5, None], axis=1).mean(axis=1)
    assert ((event @ (prompts - prompts.mean(axis=0)).T).argmax(axis=1) == clips["label"]).mean() > 0.9


def test_every_class_is_in_every_split_by_its_share(made: Dataset) -> None:
    counts = {split: np.bincount(columns(made, split)["label"], minlength=10) for split in SPLITS}
    assert sum(sum(column) for column in counts.values()) == 5000
    for split, share in (("train", 0.7), ("valid", 0.1), ("test", 0.2)):
        np.testing.assert_allclose(counts[split] / 5000, share / 10, atol=0.011)


def test_small_classes_are_in_every_split() -> None:
    content = np.repeat([0, 1, 2], [3, 4, 200])
    splits = np.array(split_of_clips(np.random.default_rng(0), content))
    for one in range(3):
        assert set(splits[content == one]) == set(SPLITS)


@pytest.mark.parametrize("num_clips", [200, 9001])
def test_clips_are_unique_and_the_data_set_passes_its_check(tmp_path: Path, num_clips: int) -> None:
    dataset = make_retrieval_dataset(tmp_path / "d", num_clips=num_clips, visual_width=20, audio_width=19, frames=2)
    report = check_dataset(tmp_path / "d")
    assert report.findings == ()
    assert report.rows == num_clips
    assert dataset.manifest.label == LabelSpec(0, 9, "class", class_names(10))
    assert not any(clip.text for clip in dataset.clips("train", features=()))


def test_same_arguments_give_identical_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    first, again, other = (
        make_retrieval_dataset(tmp_path / name, num_clips=200, seed=seed)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first.manifest.fingerprint == again.manifest.fingerprint != other.manifest.fingerprint
    assert first.manifest.truth == again.manifest.truth
    assert sha256_file(first.prompts_path) == sha256_file(other.prompts_path)


def test_features_drawn_in_pieces_stay_with_their_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vadv_dist.data.synth import retrieval_model

    monkeypatch.setattr(retrieval_model, "_BLOCK_BYTES", 40_000)  # 15 clips
    clips = columns(make_retrieval_dataset(tmp_path / "d", num_clips=400, s_audio=0.05, s_frame=0.05), *SPLITS)
    posterior = read_ideally(RetrievalModel(s_audio=0.05, s_frame=0.05), clips)
    for values in (posterior.audio, posterior.frames):
        right = values.argmax(axis=1) == clips["label"]
        assert right.mean() == pytest.approx(0.72, abs=0.06)  # 40 % of the labels of 70 % of the clips are wrong


def test_one_frame_of_vegas_width_is_uninformative(tmp_path: Path) -> None:
    dataset = make_retrieval_dataset(tmp_path / "d", num_clips=200, frames=1, visual_width=1024)
    assert dataset.manifest.features["visual"].shape == (1, 1, 1024)
    best = dataset.manifest.truth["best_map"]
    assert best["frames"]["map"] == best["student"]["map"] > best["chance"]["map"] + 0.2
    assert "say no more than their mean" in dataset.manifest.truth["model"]


def test_less_noise_means_a_higher_best_map() -> None:
    best = [
        truth_document(RetrievalModel(s_audio=s, s_visual=s / 2, s_shared=1.0), num_test=100)["best_map"]
        for s in (0.6, 0.3, 0.1)
    ]
    for name in ("classes", "student", "frames"):
        values = [one[name]["map"] for one in best]
        assert values == sorted(values)
    for one in best:
        assert one["chance"]["map"] < one["classes"]["map"] < one["student"]["map"] < one["frames"]["map"]


def test_chance_is_the_share_of_a_class_in_large_galleries() -> None:
    document = truth_document(RetrievalModel(num_classes=4, audio_width=32, visual_width=32), num_test=5000)
    assert document["best_map"]["chance"]["map"] == pytest.approx(0.25, abs=0.01)


def test_latents_have_the_stated_distribution() -> None:
    latents = draw_latents(np.random.default_rng(0), RetrievalModel(), 20_000)
    assert (latents.event.sum(axis=1) == 5).all()
    np.testing.assert_allclose(latents.event.mean(axis=0), 5 / 8, atol=0.02)
    np.testing.assert_allclose(np.bincount(latents.content) / 20_000, 0.1, atol=0.01)
    assert (latents.wrong != latents.content).all()
    assert abs((latents.other == latents.content).mean() - 0.1) < 0.01


def test_names_of_classes_are_unique() -> None:
    assert len(set(class_names(40))) == 40
    assert class_names(27)[25:] == ("zulu", "class 26")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_clips": 199}, "--num-clips is 199, expected at least 200: 20 for each of 10 classes"),
        ({"seed": -1}, "--seed is -1"),
        ({"num_classes": 1}, "num_classes (--classes) is 1, expected an integer from 2 to 1,000"),
        ({"label_noise": 1.0}, "label_noise (--label-noise) is 1.0, expected a share of the train labels"),
        ({"label_noise": float("nan")}, "label_noise (--label-noise) is nan"),
        ({"s_audio": 0.0}, "s_audio (--audio-noise) is 0.0, expected a standard deviation above 0"),
        ({"s_visual": float("inf")}, "s_visual (--visual-noise) is inf"),
        (
            {"audio_width": 18},
            "audio_width (--audio-width) is 18, expected an integer from 19 to 65,536: 10 classes need 19 directions.",
        ),
        ({"visual_width": 19}, "visual_width (--visual-width) is 19, expected an integer from 20"),
        ({"frames": 0}, "frames (--frames) is 0, expected an integer from 1 to 1,024."),
    ],
)
def test_invalid_options_are_refused_and_leave_nothing_behind(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        make_retrieval_dataset(tmp_path / "d", **{"num_clips": 200, **options})
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_generating_data_imports_no_torch() -> None:
    code = (
        "import sys, vadv_dist.data.synth.retrieval_dataset; sys.exit('torch' in sys.modules or 'rich' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
