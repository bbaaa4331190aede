"""A stage of a workflow: what it depends on, its identity, and the record of its completion.

A stage's identity is a hash of everything that determines its output: its kind, its settings, the content of files from
outside, the identities of its inputs, and the package's version. Its folder is named after it, so an identical stage is
found again and a changed one gets another folder.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vadv_dist import __version__
from vadv_dist.errors import UserError
from vadv_dist.storage import Location, find_json, sha256_file
from vadv_dist.workflow.outside import OutsideFile, Seen

if TYPE_CHECKING:
    from rich.console import Console

MANIFEST = "stage.json"
CARD = "card.html"
NAME_LENGTH = 12  # of an identity, in the name of a folder


@dataclass(frozen=True)
class Outcome:
    """What a stage produced.

    Attributes:
        values: plain values for later stages and for people; locations are relative to the stage's folder.
        products: files, relative to the folder, that later stages depend on. Their hashes tell whether a repetition of
            the stage changed anything.
    """

    values: Mapping[str, Any]
    products: Sequence[str]


@dataclass(frozen=True)
class Finished:
    """A complete stage.

    Attributes:
        folder: its folder.
        manifest: content of its `stage.json`.
    """

    folder: Location
    manifest: Mapping[str, Any]

    @property
    def values(self) -> Mapping[str, Any]:
        """See `Outcome`."""
        values: Mapping[str, Any] = self.manifest["values"]
        return values

    @property
    def identity(self) -> str:
        """Identity of the stage."""
        return str(self.manifest["identity"])

    @property
    def digest(self) -> str:
        """SHA-256 over its products."""
        return str(self.manifest["digest"])

    def place(self, name: str) -> Location:
        """The location that one of its values names."""
        return self.folder / str(self.values[name])

    def is_built_on(self, inputs: Mapping[str, "Finished"]) -> bool:
        """Whether the inputs still have the content that this stage was built on."""
        recorded: Mapping[str, Any] = self.manifest["inputs"]
        return all(recorded.get(name, {}).get("digest") == each.digest for name, each in inputs.items())


@dataclass(frozen=True)
class Work:
    """What a stage works with.

    Attributes:
        folder: its folder.
        inputs: its complete inputs by name.
        console: shows progress.
    """

    folder: Location
    inputs: Mapping[str, Finished]
    console: "Console"

    def of_kind(self, kind: str) -> dict[str, Finished]:
        """The inputs of one kind by name."""
        return {name: each for name, each in self.inputs.items() if each.manifest["kind"] == kind}


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: unique in its workflow; the name of its folder's parent.
        kind: what it does.
        settings: plain values that determine its output.
        run: does the work. It may find what an earlier attempt left in the folder, and resumes from there.
        inputs: the stages whose output it reads.
        after: further stages that must be complete first.
        outside: the files from outside that determine its output, by role.
        seen: what was seen of them.
        versions: reads sizes and times of change (or ETags) of files from outside that are too large to read before
            anything starts, by path. They are no part of the identity: if they differ from those of its last
            completion, the stage runs again and compares contents.
        heavy: whether it belongs on a cluster.
    """

    name: str
    kind: str
    settings: Mapping[str, Any]
    run: Callable[[Work], Outcome]
    inputs: tuple["Stage", ...] = ()
    after: tuple["Stage", ...] = ()
    outside: Mapping[str, OutsideFile] = field(default_factory=dict)
    seen: Mapping[str, Seen] = field(default_factory=dict)
    versions: Callable[[], Mapping[str, str]] = dict
    heavy: bool = False

    @cached_property
    def identity(self) -> str:
        """SHA-256 of everything that determines its output."""
        facts = {
            "kind": self.kind,
            "settings": self.settings,
            "outside": sorted(seen.content for seen in self.seen.values()),
            "inputs": {stage.name: stage.identity for stage in self.inputs},
            "version": __version__,
        }
        return _digest(facts)

    @cached_property
    def versions_digest(self) -> str:
        """SHA-256 of `versions`, which are read once; empty without any."""
        versions = dict(self.versions())
        return _digest(versions) if versions else ""

    def is_current(self, finished: Finished, inputs: Mapping[str, Finished]) -> bool:
        """Whether its inputs and large files from outside are still those of its completion."""
        return finished.is_built_on(inputs) and finished.manifest.get("versions", "") == self.versions_digest

    def folder(self, root: Location) -> Location:
        """Its folder in a workflow's folder."""
        return stage_folder(root, self.name, self.identity)


def stage_folder(root: Location, name: str, identity: str) -> Location:
    """The folder of the stage of this name and identity in a workflow's folder."""
    return root / name / identity[:NAME_LENGTH]


def read_finished(folder: Location) -> Finished | None:
    """Read the record of a complete stage; None if it is not complete."""
    manifest = find_json(folder / MANIFEST)
    return None if manifest is None else Finished(folder, manifest)


def manifest_of(stage: Stage, folder: Location, inputs: Mapping[str, Finished], outcome: Outcome) -> dict[str, Any]:
    """The content of `stage.json`, without what is known of the attempt.

    Raises:
        UserError: a product is missing.
    """
    hashes = {}
    for name in sorted(outcome.products):
        try:
            hashes[name] = sha256_file(folder / name)
        except FileNotFoundError:
            raise UserError(f"{folder / name} is missing. Somebody removed it; run the workflow again.") from None
    return {
        "stage": stage.name,
        "kind": stage.kind,
        "identity": stage.identity,
        "version": __version__,
        "settings": dict(stage.settings),
        "outside": {seen.place: seen.content for seen in stage.seen.values()},
        "versions": stage.versions_digest,
        "inputs": {name: {"identity": each.identity, "digest": each.digest} for name, each in inputs.items()},
        "values": dict(outcome.values),
        "products": hashes,
        "digest": _digest(hashes),
    }


def _digest(plain: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
