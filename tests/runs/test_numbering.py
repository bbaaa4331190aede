"""A run without a name of its own: the folder that holds it, or else the next number."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from vadv_dist.cli import main
from vadv_dist.config import Config, load_config, names_run
from vadv_dist.errors import StoppedError, TakenError
from vadv_dist.launch.driver import train
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.numbering import locked_run, with_name
from vadv_dist.runs.trained_on import TrainedOn
from vadv_dist.storage import location, locks
from vadv_dist.training.loop import Trainer

QUIET = Console(quiet=True)
NOTHING_KNOWN = TrainedOn((), None)


@pytest.fixture
def unnamed(write_config: Callable[..., Path], tmp_path: Path) -> Path:
    """A user's file that does not name its run."""
    path = write_config()
    path.write_text(path.read_text().replace("run: {name: run, ", "run: {"))
    return path


@pytest.fixture
def configured(unnamed: Path) -> Callable[..., Config]:
    return lambda *overrides: load_config(unnamed, ("--trainer.epochs=1", *overrides))


def names(config: Config) -> list[str]:
    return sorted(path.name for path in location(config.run.storage).iterdir())


def test_the_same_command_is_the_same_run_and_another_setting_another_one(
    unnamed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--config", str(unnamed), "--trainer.epochs=1"]
    assert main(command) == 0
    root = tmp_path / "runs" / "run"
    assert f"next: vadv evaluate {root} --split test" in capsys.readouterr().out
    assert main([*command, "--run.seed=6"]) == 0
    shown = capsys.readouterr()
    assert f"{root} is another run (run.seed: 5 there, 6 now), so this one is run-2; --run.name=…" in shown.err
    assert f"training {root}-2: " in shown.err
    assert f"next: vadv evaluate {root}-2 --split test" in shown.out
    assert main(command) == 0
    assert f"{root} is already complete" in capsys.readouterr().err
    assert main([*command, "--run.seed=6"]) == 0
    assert f"{root}-2 is already complete" in capsys.readouterr().err
    assert main([*command, "--run.seed=7", "--run.name=run"]) == 2
    assert "run.seed: 5 there, 7 now" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["run", "run-2"]
    assert RunFolder.open(f"{root}-2").config().run.name == "run-2"


def test_a_stopped_run_is_resumed_whatever_was_trained_since(
    configured: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = configured("--trainer.epochs=3"), configured("--run.seed=6")
    end_epoch = Trainer._end_epoch

    def stop(self: Trainer) -> None:
        end_epoch(self)
        if self.state.epoch == 2:  # the checkpoint of the first epoch is complete
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_end_epoch", stop)
        with pytest.raises((KeyboardInterrupt, StoppedError)):
            train(first, QUIET, numbered=True)
    assert train(other, QUIET, numbered=True).run == "run-2"
    assert train(first, QUIET, numbered=True).run == "run"
    assert train(configured("--run.seed=6", "--trainer.epochs=2"), QUIET, numbered=True).run == "run-2", "extended"
    assert names(first) == ["run", "run-2"]


def test_a_run_without_a_checkpoint_gives_its_folder_to_another(configured: Callable[..., Config]) -> None:
    first, other = configured(), configured("--run.seed=6")
    with locked_run(first, NOTHING_KNOWN, numbered=True, say=print) as folder:
        folder.claim(first, NOTHING_KNOWN)
        (folder.root / "validation-errors.parquet").touch()  # of an epoch whose checkpoint was not complete
    with locked_run(other, NOTHING_KNOWN, numbered=True, say=print) as folder:
        assert folder.root.name == "run"
        assert not folder.claim(other, NOTHING_KNOWN)
        assert folder.config().run.seed == 6


def test_numbers_rise_and_foreign_folders_are_left_alone(configured: Callable[..., Config], tmp_path: Path) -> None:
    config = configured()
    for name in ("run", "run-7", "run-x", "run-08"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "mine.txt").write_text("kept")
    said: list[str] = []
    with locked_run(config, NOTHING_KNOWN, numbered=True, say=said.append) as folder:
        assert folder.root.name == "run-8"
    assert said == [f"{tmp_path}/runs/run is taken, so this one is run-8; --run.name=… gives it a name of its own"]
    with locked_run(config, NOTHING_KNOWN, numbered=True, say=said.append) as folder:
        assert folder.root.name == "run-8", "it holds nothing yet"
    assert (tmp_path / "runs" / "run" / "mine.txt").read_text() == "kept"


@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_runs_that_start_at_once_get_different_numbers(
    configured: Callable[..., Config], kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "RENEW_S", 0.3)
    monkeypatch.setattr(locks, "LEASE_S", 5.0)
    storage = [] if kind == "disk" else [f"--run.storage={request.getfixturevalue('s3')}/numbered"]
    configs = [configured(f"--run.seed={seed}", *storage) for seed in range(3)]
    begin, all_hold = threading.Barrier(3), threading.Barrier(3, timeout=60)
    found: list[tuple[int, str]] = []

    def start(config: Config) -> None:
        begin.wait()
        with locked_run(config, NOTHING_KNOWN, numbered=True, say=lambda text: None) as folder:
            folder.claim(with_name(config, folder.root.name), NOTHING_KNOWN)
            found.append((config.run.seed, folder.root.name))
            all_hold.wait()

    threads = [threading.Thread(target=start, args=[config]) for config in configs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name for _, name in found} == {"run", "run-2", "run-3"}
    for seed, name in found:  # started again, each finds its own
        with locked_run(configs[seed], NOTHING_KNOWN, numbered=True, say=lambda text: None) as folder:
            assert folder.root.name == name


def test_a_run_that_another_process_trains_is_not_trained_twice(configured: Callable[..., Config]) -> None:
    config = configured()
    with locked_run(config, NOTHING_KNOWN, numbered=True, say=print) as folder:
        folder.claim(config, NOTHING_KNOWN)
        with (
            pytest.raises(TakenError, match="is being trained by another process"),
            locked_run(config, NOTHING_KNOWN, numbered=True, say=print),
        ):
            pass
    assert names(config) == ["run"]


def test_a_name_counts_if_the_user_gave_it(write_config: Callable[..., Path], unnamed: Path) -> None:
    assert not names_run("demo", ())
    assert not names_run("jobs/configs/demo.yaml", ())
    assert names_run("demo", ("--run.name=mine",))
    assert not names_run(unnamed, ("--run.seed=2",))
    assert names_run(write_config("other"), ())
