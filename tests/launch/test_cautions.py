"""Settings that a run can start with, but hardly anybody means."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from vadv_dist.config import load_config
from vadv_dist.config.recipes import list_recipes
from vadv_dist.launch.cautions import HIGHEST_LR, LOWEST_LR, cautions
from vadv_dist.launch.driver import train
from vadv_dist.launch.dry_run import describe

SIZES = {"train_clips": 100, "valid_clips": 20, "steps": 200}


def test_shipped_configs_for_large_data_give_no_caution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # theirs is the cluster's
    rates = []
    for recipe in list_recipes():
        if recipe.command != "train":
            continue
        config = load_config(recipe.path)
        assert cautions(config, train_clips=10_000, valid_clips=1000, steps=10_000) == [], recipe.name
        if getattr(config.student, "encoder", "") and getattr(config.student, "pretrained", False):
            rates.append(config.optimizer.lr)
    assert (min(rates), max(rates)) == (LOWEST_LR, HIGHEST_LR)


@pytest.mark.parametrize(
    ("override", "sizes", "message"),
    [
        ("--data.batch_size=101", {}, "data.batch_size is 101, but an epoch has 100 clips"),
        ("--optimizer.warmup_steps=200", {}, "but the run has 200 steps, so the learning rate never reaches"),
        ("--optimizer.warmup_steps=15", {"steps": 12}, "Set it to about 1."),
        ("--optimizer.lr=0.001", {}, "optimizer.lr is 0.001; the shipped configs .* with 8e-06 to 5e-05"),
        ("--optimizer.lr=1e-7", {}, "optimizer.lr is 1e-07"),
        ("--trainer.num_workers=3", {"valid_clips": 2}, "num_workers is 3, but .* has 2 clips"),
        ("--trainer.use_gpu=true", {}, "trainer.use_gpu is true, but this machine has no GPU"),
    ],
)
def test_unusual_settings(
    write_config: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    override: str,
    sizes: dict[str, int],
    message: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    usual = ["--student.pretrained=true", "--optimizer.lr=2e-5", "--optimizer.warmup_steps=5", "--trainer.use_gpu=auto"]
    assert cautions(load_config(write_config(), usual), **{**SIZES, **sizes, "valid_clips": 20}) == []
    (found,) = cautions(load_config(write_config(), [*usual, override]), **{**SIZES, **sizes})
    assert re.search(message, found), found


def test_a_new_run_and_a_dry_run_say_it(write_config: Callable[..., Path]) -> None:
    config = load_config(write_config(), ["--trainer.epochs=1", "--optimizer.warmup_steps=1000"])
    (said,) = describe(config)["warnings"]
    console = Console(record=True, width=500, file=io.StringIO())
    train(config, console)
    train(config, console)
    assert console.export_text().count(f"warning: {said}") == 1
