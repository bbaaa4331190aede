"""`vadv data-export mmsa`: what MMSA reads, and that our own reader restores the data set."""

import json
import pickle
from pathlib import Path

import numpy as np
from transformers import AutoConfig, AutoModel, AutoTokenizer

from vadv_dist.cli.command import main
from vadv_dist.data import mmsa_export
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.mmsa_export import export_mmsa
from vadv_dist.data.readers.mmsa import ingest_mmsa
from vadv_dist.data.readers.sequences import Framing
from vadv_dist.data.schema import Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.data.synth import make_dataset, make_retrieval_dataset
from vadv_dist.errors import UserError

FRAMES, ROWS = 3, {"train": 5, "valid": 2, "test": 3}


def write_clips(place: Path, *, label: LabelSpec | None = None, tokens: int = 1, splits=tuple(ROWS)) -> Path:
    """Clips of every kind: ids with and without their video, several sources, and clips without a feature."""
    rng = np.random.default_rng(0)
    shapes = {"visual": (FRAMES, tokens, 4), "audio": (FRAMES, 2)}
    features = {name: FeatureSpec(shape) for name, shape in shapes.items()}
    label = label or LabelSpec()
    with DatasetWriter(place, features=features, label=label, provenance={}) as writer:
        for split in splits:
            for i in range(ROWS[split]):
                values = {name: rng.normal(size=shape).astype(np.float16) for name, shape in shapes.items()}
                if i == 1:
                    values["audio"] = None
                video = f"{split}_video"
                clip_id = f"{split}-{i}" if i == 2 else f"{video}_{i}"
                text = f"Ein schöner Film, {split} {i}"
                value = np.float32(label.low + (label.high - label.low) * i / 4)
                writer.write(split, Clip(clip_id, video, text, float(value), f"source {i % 2}", values))
    return place


def load(path: Path):
    with path.open("rb") as file:
        return pickle.load(file)


def test_our_reader_restores_the_data_set(tmp_path: Path) -> None:
    original = Dataset.open(write_clips(tmp_path / "data"))
    found = export_mmsa(original.root, tmp_path / "out.pkl")
    assert found.clips == ROWS
    assert found.modalities == {"text": ("text", [50, 300]), "vision": ("visual", [3, 4]), "audio": ("audio", [3, 2])}
    ingest_mmsa(tmp_path / "out.pkl", tmp_path / "again", framing=Framing(frames=FRAMES))
    again = Dataset.open(tmp_path / "again")
    # The fingerprint is that of the shards' bytes: ids, videos, sources, texts, labels, features and what is missing.
    assert again.manifest.fingerprint == original.manifest.fingerprint
    assert (again.manifest.features, again.manifest.label) == (original.manifest.features, original.manifest.label)


def test_columns_are_those_of_mmsa(tmp_path: Path) -> None:
    export_mmsa(write_clips(tmp_path / "data", tokens=2), tmp_path / "out.pkl")
    content = load(tmp_path / "out.pkl")
    assert list(content) == ["train", "valid", "test"]
    train = content["train"]
    assert train["id"] == [
        *("train_video$_$0", "train_video$_$1", "train-2"),
        *("train_video$_$3", "train_video$_$4"),
    ]
    assert train["raw_text"][0] == "Ein schöner Film, train 0"
    assert train["regression_labels"].tolist() == [-3.0, -1.5, 0.0, 1.5, 3.0]
    assert train["annotations"] == ["Negative", "Negative", "Neutral", "Positive", "Positive"]
    assert train["classification_labels"].tolist() == [0, 0, 1, 2, 2]
    assert train["vision_lengths"] == [3] * 5
    assert train["audio_lengths"] == [3, 1, 3, 3, 3]
    assert not train["audio"][1].any()
    assert all(train[name].dtype == np.float32 for name in ("text", "audio", "vision", "regression_labels"))
    # The tokens of a frame are averaged.
    rng = np.random.default_rng(0)
    first = rng.normal(size=(FRAMES, 2, 4)).astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(train["vision"][0], first.mean(axis=1), rtol=1e-6)


def test_a_word_has_the_same_vector_everywhere(tmp_path: Path) -> None:
    values, tokens = mmsa_export.hashed_words(["good film", "a Good one two three"], 4)
    assert values.shape == (2, 4, mmsa_export.WORD_WIDTH)
    assert tokens is None
    np.testing.assert_array_equal(values[0, 0], values[1, 1])
    assert not np.allclose(values[0, 0], values[0, 1])
    assert not values[0, 2:].any()
    assert values[1, 3].any()


def test_an_encoder_gives_embeddings_and_tokens(tmp_path: Path, capsys) -> None:
    make_dataset(tmp_path / "made", num_clips=24, seed=1)
    encoder = tmp_path / "made" / "encoder"
    AutoModel.from_config(AutoConfig.from_pretrained(encoder)).save_pretrained(encoder)
    out = tmp_path / "out.pkl"
    arguments = ["--encoder", str(encoder), "--max-tokens", "12", "--vision", "face", "--audio", "visual", "--json"]
    capsys.readouterr()
    assert main(["data-export", "mmsa", str(tmp_path / "made"), str(out), *arguments]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["modalities"] == {
        "text": ["text", [12, 128]],
        "vision": ["face", [64, 8]],
        "audio": ["visual", [8, 32]],
    }
    train = load(out)["train"]
    ids = AutoTokenizer.from_pretrained(encoder)(train["raw_text"], truncation=True, max_length=12)["input_ids"]
    for row, expected in enumerate(ids):
        used = train["text_bert"][row, 1].sum()
        assert train["text_bert"][row, 0, :used].tolist() == expected
        assert np.abs(train["text"][row, :used]).sum(axis=1).all()
        assert not train["text"][row, used:].any()


def test_labels_with_another_threshold_are_read_back(tmp_path: Path) -> None:
    stars = LabelSpec(1.0, 5.0, threshold=3.0)
    original = Dataset.open(write_clips(tmp_path / "data", label=stars))
    export_mmsa(original.root, tmp_path / "out.pkl")
    assert load(tmp_path / "out.pkl")["train"]["classification_labels"].tolist() == [0, 0, 1, 2, 2]
    ingest_mmsa(
        tmp_path / "out.pkl", tmp_path / "again", framing=Framing(frames=FRAMES), label_range=(1, 5), threshold=3
    )
    assert Dataset.open(tmp_path / "again").manifest.fingerprint == original.manifest.fingerprint


def test_an_existing_file_stays_unless_it_may_be_replaced_and_a_failure_leaves_nothing(
    tmp_path: Path, capsys, monkeypatch
) -> None:
    data, out = write_clips(tmp_path / "data"), tmp_path / "out.pkl"
    out.write_bytes(b"mine")
    command = ["data-export", "mmsa", str(data), str(out)]
    assert main(command) == UserError.exit_code
    assert "out.pkl exists. Choose another file, or add --overwrite" in capsys.readouterr().err
    assert out.read_bytes() == b"mine"

    def full(*arguments, **options):
        arguments[1].write(b"part")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(mmsa_export.pickle, "dump", full)
        assert main([*command, "--overwrite"]) == 1
    assert out.read_bytes() == b"mine"
    assert {path.name for path in tmp_path.iterdir()} == {"data", "out.pkl"}
    capsys.readouterr()
    assert main([*command, "--overwrite"]) == 0
    assert capsys.readouterr().out == (
        f"wrote {out}: 5 train, 2 valid, 3 test clips; text [50, 300], vision [3, 4] (visual), audio [3, 2]\n"
    )


def test_bad_input_is_refused_with_one_message(tmp_path: Path, capsys) -> None:
    make_retrieval_dataset(tmp_path / "classes", num_clips=60, num_classes=3)
    data = write_clips(tmp_path / "data")
    cases = [
        ([str(tmp_path / "classes")], "has classes as labels, but MMSA's models predict a sentiment"),
        ([str(write_clips(tmp_path / "two", splits=("train", "test")))], "has no valid clips"),
        ([str(data), "--vision", "face"], "--vision is 'face', which is not in the data set"),
        ([str(data), "--audio", "smell"], "--audio is 'smell', which is unknown"),
        ([str(data), "--max-tokens", "0"], "--max-tokens is 0"),
        ([str(tmp_path / "nowhere")], "nowhere"),
    ]
    for (uri, *options), message in cases:
        assert main(["data-export", "mmsa", uri, str(tmp_path / "out.pkl"), *options]) == UserError.exit_code
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out.pkl").exists()
