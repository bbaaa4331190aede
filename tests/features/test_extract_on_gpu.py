"""An extraction on a GPU writes the features of one on a CPU."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from lists import quiet

from vadv_dist.data.dataset import Dataset
from vadv_dist.data.reading import ShardReader
from vadv_dist.features.extract import extract

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-3), ("auto", 3e-2)])
def test_features_equal_those_of_a_cpu(
    gpu: torch.device,
    configure,
    clips_csv: Path,
    tmp_path: Path,
    precision: Literal["fp32", "auto"],
    tolerance: float,
) -> None:
    config = configure(clips_csv, tmp_path / "cpu", tokens="patches")
    on_gpu = replace(
        config,
        output=replace(config.output, uri=str(tmp_path / "gpu")),
        batching=replace(config.batching, precision=precision),
        compute=replace(config.compute, use_gpu=True),
    )
    extract(config, quiet())
    extract(on_gpu, quiet())
    rows = []
    for name in ("cpu", "gpu"):
        dataset = Dataset.open(tmp_path / name)
        shard = dataset.manifest.splits["train"][0]
        rows.append(ShardReader(dataset, ("visual",)).read(shard).column("visual").combine_chunks().to_numpy_ndarray())
    expected, found = (stored.astype(np.float32) for stored in rows)
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())
