"""The option `--overwrite`: replace what an earlier command wrote, and nothing else."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from vadv_dist.errors import ExistsError, UserError

T = TypeVar("T")
# Why what is at a path was not written by the command, as the end of a sentence; None if it was.
Foreign = Callable[[Path], str | None]


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    what = "replace what an earlier command wrote there, once the new one is complete; anything else is refused"
    parser.add_argument("--overwrite", action="store_true", help=what)


def overwriting(options: argparse.Namespace, place: str, foreign: Foreign, call: Callable[[], T]) -> T:
    """Call what writes to a place; if something is there and `--overwrite` is given, put that aside first.

    Args:
        options: the parsed command line.
        place: the output.
        foreign: why what is there was not written by this kind of command.
        call: writes it, and raises `ExistsError` if something is there, before it does anything else.
    Raises:
        UserError: something else is there, or the place is in an object store.
    """
    from vadv_dist.storage import earlier_of, location, on_disk, put_aside, remove_earlier

    path = on_disk(location(place))
    try:
        done = call()
    except ExistsError as error:
        if not options.overwrite:
            hint = " --overwrite replaces it." if path is not None and foreign(path) is None else ""
            raise ExistsError(f"{error}{hint}") from None
        if path is None:
            raise UserError(
                f"{place} exists, and --overwrite replaces only what is on a disk: in an object store it could not be "
                "put back if the command failed. Choose another place, or remove this one."
            ) from None
        if (why := foreign(path)) is not None:
            raise UserError(f"{place} is not replaced: {why}. Choose another place.") from None
        print(f"vadv: {place} is kept as {earlier_of(path)} until the new one is complete", file=sys.stderr)
        with put_aside(path):
            done = call()
    if options.overwrite and path is not None:
        remove_earlier(path)
    return done


def foreign_to_dataset(path: Path) -> str | None:
    """Why a path is not a data set that vadv wrote."""
    from vadv_dist.data.own_files import foreign_file

    if not (path / "dataset.json").is_file():
        return "it has no dataset.json, so it is not a data set of vadv"
    name = foreign_file(path)
    return None if name is None else f"{name} in it is not a part of the data set, and would be lost"


def foreign_to_export(path: Path) -> str | None:
    """Why a path is not an export that vadv wrote."""
    from vadv_dist.inference.manifest import MANIFEST, unlisted_files

    if not (path / MANIFEST).is_file():
        return f"it has no {MANIFEST}, so it is not an export of vadv"
    names = unlisted_files(path)
    return f"{names[0]} in it is not a part of the export, and would be lost" if names else None


def foreign_to_predictions(path: Path) -> str | None:
    """Why a path is not a table of predictions."""
    from vadv_dist.inference.predicted_files import is_predicted

    return None if is_predicted(path) else "it is not a table whose last columns are predictions of vadv predict"


def foreign_to_retrieved(path: Path) -> str | None:
    """Why a path is not a table of retrieved clips."""
    from vadv_dist.inference.retrieve import is_retrieved

    return None if is_retrieved(path) else "it is not a table that vadv retrieve wrote"
