"""Prompt embeddings are read exactly as written, or refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from vadv_dist.config import load_config
from vadv_dist.data.dataset import Dataset, manifest_json
from vadv_dist.data.prompts import load_prompts
from vadv_dist.data.shards import write_prompts
from vadv_dist.data.sources import Sources
from vadv_dist.data.synth import make_dataset
from vadv_dist.errors import UserError
from vadv_dist.storage import sha256_file, write_json


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return make_dataset(tmp_path / "data", num_clips=30, visual_shape=(2, 1, 4), face_shape=(3, 2))


def test_the_declared_hash_matches_the_file_and_is_part_of_the_fingerprint(dataset: Dataset) -> None:
    manifest = dataset.manifest
    assert manifest.prompts_sha256 == sha256_file(dataset.prompts_path)
    np.testing.assert_array_equal(load_prompts(dataset), load_file(dataset.prompts_path)["prompts"])
    others = {replace(manifest, prompts_sha256=value).fingerprint for value in (None, "0" * 64)}
    assert len(others | {manifest.fingerprint}) == 3


def test_changed_prompts_stop_a_run(dataset: Dataset, write_config) -> None:
    config = load_config(write_config(uri=dataset.root))
    assert load_prompts(Sources.open(config).datasets[0]).shape == (2, 4)
    save_file({"prompts": np.zeros((2, 4), np.float32)}, dataset.prompts_path)
    with pytest.raises(UserError, match="was changed after the data set was written"):
        load_prompts(Sources.open(config).datasets[0])
    dataset.prompts_path.unlink()
    with pytest.raises(UserError, match=r"is missing, but dataset\.json declares 2 prompts"):
        load_prompts(Sources.open(config).datasets[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"not tensors", "not a readable safetensors file"), (None, r"prompts of shape None, expected \[2, D\]")],
)
def test_without_a_declared_hash_the_file_is_still_checked(dataset: Dataset, content, message: str) -> None:
    write_json(dataset.root / "dataset.json", manifest_json(replace(dataset.manifest, prompts_sha256=None)))
    if content is None:
        save_file({"other": np.zeros(1, np.float32)}, dataset.prompts_path)
    else:
        dataset.prompts_path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_prompts(Dataset.open(dataset.root))


def test_equal_prompts_are_equal_bytes(tmp_path: Path) -> None:
    prompts = np.arange(8, dtype=np.float32).reshape(2, 4)
    assert write_prompts(tmp_path / "a", prompts) == write_prompts(tmp_path / "b", prompts.copy())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
