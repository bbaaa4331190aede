"""Files that a workflow reads but does not make: what identifies them, and whether they changed since."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vadv_dist.errors import UserError
from vadv_dist.runs.encoder_identity import EncoderIdentity
from vadv_dist.storage import file_version, location, sha256_file


@dataclass(frozen=True)
class OutsideFile:
    """A file from outside, or a folder of files.

    Attributes:
        place: where it is.
        read: reads what identifies its content, such as its SHA-256.
    """

    place: str
    read: Callable[[], str]


@dataclass(frozen=True)
class Seen:
    """A file as it was when the workflow was planned.

    Attributes:
        place: where it was.
        content: what identifies its content.
        version: its size and time of change, or its ETag; empty if it is not a single file.
    """

    place: str
    content: str
    version: str


def content_of(place: str, where: str = "") -> OutsideFile:
    """A file that is identified by its SHA-256.

    Args:
        place: the file.
        where: who names it, for messages.
    """

    def read() -> str:
        try:
            return sha256_file(location(place))
        except (FileNotFoundError, IsADirectoryError):
            named = f"{where}: {place}" if where else place
            raise UserError(f"{named} is not a file. Give an existing one.") from None

    return OutsideFile(place, read)


def encoder_content(name_or_path: str, *, weights: bool) -> dict[str, OutsideFile]:
    """An encoder, which is identified by its files; one of the Hugging Face Hub has its name in the settings only.

    It could not be told apart from itself, because its files are not here before it is used for the first time.

    Args:
        name_or_path: as in `student.encoder`.
        weights: whether its weights matter.
    """
    if "://" not in name_or_path and not Path(name_or_path).expanduser().is_dir():
        return {}

    def read() -> str:
        known = EncoderIdentity.of(name_or_path, weights=weights)
        return f"{known.tokenizer} {known.weights}"

    return {f"encoder {name_or_path}": OutsideFile(name_or_path, read)}


def look(file: OutsideFile) -> Seen:
    """Read what identifies a file.

    Raises:
        UserError: it does not exist.
    """
    version = version_of(file.place)  # first, so that a change while it is read shows
    return Seen(file.place, file.read(), version)


def require_unchanged(files: Mapping[str, OutsideFile], seen: Mapping[str, Seen], stage: str) -> None:
    """Refuse files that have changed since they were seen; only those with another version are read again.

    Args:
        files: the files of a stage by role.
        seen: what was seen of them.
        stage: its name, for messages.
    Raises:
        UserError: one has other content, or does not exist.
    """
    for role, before in seen.items():
        file = files.get(role)
        if file is None:
            raise UserError(
                f"{stage}: {before.place} does not exist on this machine. Use a place that all machines see."
            )
        if before.version and before.version == version_of(file.place):
            continue
        if file.read() != before.content:
            raise UserError(
                f"{stage}: {file.place} has another content than when the workflow was planned. If it changed "
                "meanwhile, run the same command again. If this is another machine, use a place that both see."
            )


def version_of(place: str) -> str:
    """Size and time of change of a file, or its ETag; empty if there is no such file."""
    try:
        found = location(place)
        return file_version(found) if found.is_file() else ""
    except (OSError, UserError):
        return ""
