"""Shared fixtures: tiny encoders, a list of small generated videos, a configuration."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from lists import HEADER
from tiny_models import write_classifier, write_clip  # importable because of the line above
from videos import write_list, write_video

from vadv_dist.config.extract_sections import (
    BatchingConfig,
    ClipsConfig,
    ComputeConfig,
    ExpressionConfig,
    ExtractConfig,
    FacesConfig,
    FramesConfig,
    ImageConfig,
    OutputConfig,
)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP."""
    return write_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(scope="session")
def classifier_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier of eight expressions."""
    return write_classifier(tmp_path_factory.mktemp("models") / "classifier")


@pytest.fixture(scope="session")
def clips_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten good clips of two splits, without faces."""
    folder = tmp_path_factory.mktemp("clips")
    rows = []
    for number in range(10):
        write_video(folder / f"v{number}.mp4", frames=12, seed=number)
        split = "train" if number < 7 else "valid"
        rows.append(
            (f"v{number}_0", f"v{number}", split, f"{number % 7 - 3}", f"words of clip {number}", f"v{number}.mp4")
        )
    return write_list(folder / "clips.csv", rows, HEADER)


@pytest.fixture
def configure(clip_folder: Path, tmp_path: Path) -> Callable[..., ExtractConfig]:
    """Build a small configuration for this process, without faces unless an expression encoder is given."""

    def build(
        csv: Path,
        out: Path | None = None,
        *,
        expression: Path | None = None,
        faces: FacesConfig | None = None,
        num_workers: int | None = 0,
        max_rejected: float = 0.01,
        **image: str,
    ) -> ExtractConfig:
        return ExtractConfig(
            clips=ClipsConfig(csv=str(csv)),
            output=OutputConfig(uri=str(out or tmp_path / "out"), shard_rows=3, max_rejected=max_rejected),
            frames=FramesConfig(visual=4, face=8),
            image=ImageConfig(encoder=str(clip_folder), **image),  # type: ignore[arg-type]
            faces=faces or FacesConfig(kind="none"),
            expression=ExpressionConfig(encoder=None if expression is None else str(expression)),
            batching=BatchingConfig(clips=2, precision="fp32"),
            compute=ComputeConfig(num_workers=num_workers, use_gpu=False),
        )

    return build
