"""A small study that was run once: two variants, one that fails, and predictions made elsewhere."""

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from vadv_dist.data.dataset import Dataset
from vadv_dist.studies.analysis import StudyResult
from vadv_dist.studies.plan import StudyPlan, plan_study
from vadv_dist.studies.study import run_study

CONFIG = """
data: {{sources: [{{uri: {made}}}], batch_size: 16}}
teacher: {{width: 16, heads: 2, hidden: 16}}
student: {{encoder: {made}/encoder, pretrained: false, hidden: 32}}
optimizer: {{lr: 1.0e-3, new_module_lr_factor: 1.0, warmup_steps: 3}}
trainer: {{epochs: 2, use_gpu: false, keep_best: 2}}
run: {{storage: {storage}}}
"""
STUDY = """
title: Which part of the teacher helps?
about: A test.
config: {config}
reference: alone
seeds: [1, 2]
published: {{source: "a table, p. 3"}}
variants:
  alone: {{overrides: {{objective.kind: none}}, published: {{mae: 1.2}}}}
  both steps: {{}}
  far & too_fast: {{overrides: {{optimizer.lr: 1.0e+30, optimizer.clip_norm: null}}}}
  zero: {{predictions: {predictions}}}
"""


@pytest.fixture(scope="session")
def write_study(made: Path) -> Callable[..., Path]:
    """Write a study's files into a folder; pairs of texts replace parts of the study."""

    def write(folder: Path, *changes: tuple[str, str]) -> Path:
        config, predictions = folder / "base.yaml", folder / "zero.csv"
        config.write_text(CONFIG.format(made=made, storage=folder / "out"))
        clips = Dataset.open(made).column("test", "clip_id")
        predictions.write_text(
            "clip_id,prediction\n" + "".join(f"{clip},{0.01 * at}\n" for at, clip in enumerate(clips))
        )
        text = STUDY.format(config=config, predictions=predictions)
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = folder / "parts.yaml"
        path.write_text(text)
        return path

    return write


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory, write_study: Callable[..., Path]
) -> tuple[Path, StudyPlan, StudyResult]:
    """The study's file, plan and result; do not change its folder."""
    path = write_study(tmp_path_factory.mktemp("study"))
    plan = plan_study(path)
    return path, plan, run_study(plan, Console(quiet=True), use_ray=False, best_per_metric=True, with_pdf=True)
