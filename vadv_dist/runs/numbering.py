"""The folder of a run without a name of its own: the one that holds this very run, or else the next number."""

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

from vadv_dist.config import Config
from vadv_dist.errors import TakenError, UserError
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.trained_on import TrainedOn
from vadv_dist.storage import location

# How long another process may take to say what it trains in a folder that it has locked.
_STARTING_S, _LOOK_S = 10.0, 0.25

# What a folder is to a run: the run itself, a shorter run that it extends, without any work, or anything else.
_Match = Literal["same", "shorter", "free", "other"]


@contextmanager
def locked_run(
    config: Config, trained_on: TrainedOn, *, numbered: bool, say: Callable[[str], None]
) -> Iterator[RunFolder]:
    """Hold the lock of a run's folder.

    If `numbered`, the folders NAME, NAME-2, NAME-3, … of the storage are looked through: a run with the same
    configuration, data and encoder is resumed, and a complete one with fewer epochs is extended. If there is none, the
    run gets the number after the highest, or the highest itself if that folder holds no checkpoint. Two processes
    never get the same folder. The same command thus always continues the same run, wherever it is started again.

    Args:
        config: the run; its name is NAME.
        trained_on: its data sets and encoder.
        numbered: False takes NAME itself.
        say: prints why the run has a number.
    Raises:
        UserError: another process trains this run.
    """
    if not numbered:
        with RunFolder.of(config).lock():
            yield RunFolder.of(config)
        return
    taken: set[str] = set()
    while True:
        name, match = _choose(config, trained_on, taken)
        folder = RunFolder.of(with_name(config, name))
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(folder.lock())
            except TakenError:
                if match != "free":
                    raise
                _wait_for_config(folder)
                if _match(folder, with_name(config, name), trained_on) != "same":
                    taken.add(name)
                continue
            # Another process may have trained and ended here since the folders were looked through.
            if _match(folder, with_name(config, name), trained_on) == match:
                if match == "free" and name != config.run.name:
                    say(_reason(config, name))
                yield folder
                return


def with_name(config: Config, name: str) -> Config:
    """The configuration with another `run.name`."""
    return replace(config, run=replace(config.run, name=name))


def _choose(config: Config, trained_on: TrainedOn, taken: set[str]) -> tuple[str, _Match]:
    """The name for a run, and what its folder is to it."""
    numbers = _numbers(config)
    matches = {
        name: _match(RunFolder.of(with_name(config, name)), with_name(config, name), trained_on)
        for name in numbers
        if name not in taken
    }
    for wanted in ("same", "shorter"):
        for name, match in matches.items():
            if match == wanted:
                return name, match
    if not numbers:
        return config.run.name, "free"
    *_, highest = numbers
    if matches.get(highest) == "free":
        return highest, "free"
    return f"{config.run.name}-{numbers[highest] + 1}", "free"


def _numbers(config: Config) -> dict[str, int]:
    """Names in the storage that are the run's with or without a number, sorted by that; 1 is the one without."""
    root, base = location(config.run.storage), config.run.name
    names = [path.name for path in root.iterdir()] if root.is_dir() else []
    found = {name: re.fullmatch(rf"{re.escape(base)}(?:-([2-9]|[1-9][0-9]{{1,8}}))?", name) for name in names}
    numbers = {name: int(match[1] or 1) for name, match in found.items() if match}
    return dict(sorted(numbers.items(), key=lambda item: item[1]))


def _match(folder: RunFolder, config: Config, trained_on: TrainedOn) -> _Match:
    """What a folder is to a run."""
    try:
        if not folder.config_path.is_file():
            folder.require_ours()
            return "free"
        if folder.holds_same(config, trained_on):
            return "same"
        if not folder.holds_work():
            return "free"
        return "shorter" if folder.is_extended_by(config, trained_on) else "other"
    except UserError:  # something else, or a run that this version cannot read
        return "other"


def _wait_for_config(folder: RunFolder) -> None:
    """Wait until the process that has locked a folder has written what it trains there."""
    until = time.monotonic() + _STARTING_S
    while not folder.config_path.is_file() and time.monotonic() < until:
        time.sleep(_LOOK_S)


def _reason(config: Config, name: str) -> str:
    """Why a run has a number: what differs from the run without one."""
    first = RunFolder.of(config)
    what = "is taken"
    with contextlib.suppress(UserError):
        if first.config_path.is_file() and (rows := first.differing(config, None)):
            more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
            what = f"is another run ({rows[0]}{more})"
    return f"{first.root} {what}, so this one is {name}; --run.name=… gives it a name of its own"
