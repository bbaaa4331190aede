"""A command parses each configuration file once per process."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from vadv_dist.cli import main
from vadv_dist.config import load


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was parsed; a configuration that is built from plain containers counts as a file too."""
    counts: Counter[str] = Counter()
    build = load.build

    def counted(kind: type, raw: Mapping[str, Any], overrides: Sequence[str], where: str) -> Any:
        counts[where] += 1
        return build(kind, raw, overrides, where)

    monkeypatch.setattr(load, "build", counted)
    return counts


@pytest.mark.parametrize("options", [["--print_config"], ["--dry-run"], ["--smoke"]])
def test_train_without_a_run(parsed: Counter[str], write_config: Callable[..., Path], options: list[str]) -> None:
    config = str(write_config())
    assert main(["train", "--config", config, *options]) == 0
    assert parsed.pop(config) == 1
    assert set(parsed.values()) <= {1}  # the stored configuration, when the smoke test resumes its run


def test_train_resume_and_evaluate(parsed: Counter[str], write_config: Callable[..., Path], tmp_path: Path) -> None:
    config, run = str(write_config()), tmp_path / "runs" / "run"
    command = ["train", "--config", config, "--trainer.max_steps=2"]
    for stored in ({}, {str(run / "config.yaml"): 1}):  # a resumed run compares the stored configuration
        parsed.clear()
        assert main(command) == 0
        assert parsed == {config: 1, **stored}
    parsed.clear()
    assert main(["evaluate", str(run)]) == 0
    assert parsed == {str(run / "config.yaml"): 1}
    parsed.clear()
    for path in (run / "checkpoints").iterdir():
        path.rename(tmp_path / path.name)
    (run / "result.json").unlink()
    assert main(command) == 0
    assert parsed == {config: 1, str(run / "config.yaml"): 1}


def test_doctor(parsed: Counter[str], write_config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vadv_dist.doctor._engine", lambda config: iter(()))  # has its own process
    config = str(write_config())
    assert main(["doctor", "--config", config]) == 0
    assert parsed == {config: 1}
