"""The extraction of raw clips as a stage: what identifies it, and when clips are extracted again.

Videos are too large to read before anything starts, so they are no part of the stage's identity. The stage records size
and time of change of each file, and its SHA-256 once it has been extracted. If a file was touched since, the stage
compares contents, and extracts the clips again only if one differs. The stages behind it depend on what was extracted.
"""

import contextlib
import functools
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from vadv_dist.config.extract_sections import ExtractConfig
from vadv_dist.config.load import build, config_to_dict, read_yaml, set_field
from vadv_dist.config.recipes import config_path
from vadv_dist.config.workflow import ExtractDataConfig
from vadv_dist.features.listing import ClipList, list_clips
from vadv_dist.formats.parquet import read_table
from vadv_dist.storage import (
    Location,
    files_below,
    find_json,
    join,
    local_copy,
    location,
    remove_tree,
    sha256_file,
    write_json,
)
from vadv_dist.workflow.outside import OutsideFile, content_of, encoder_content, version_of
from vadv_dist.workflow.stage import Work

CLIPS = "clips.json"  # in the stage's folder: versions and hashes of the clips' files
_AT_ONCE = 16  # files that are looked at or hashed in parallel
# Fields with locations: what is there matters, not where it is.
_PLACES = (("clips", "csv"), ("clips", "mmsa"), ("clips", "root"), ("faces", "path"))


class Extraction:
    """The extraction of a data set.

    Args:
        config: its section.
        where: the section's name, for messages.
    Raises:
        UserError: a mistake in it.
    """

    def __init__(self, config: ExtractDataConfig, where: str) -> None:
        self._section, self._where = config, where
        self._config = extraction_config(config, "extracted", where)

    @property
    def settings(self) -> dict[str, Any]:
        """What determines the data set, besides files."""
        found = config_to_dict(self._config)
        for section, field in _PLACES:
            found[section].pop(field)
        found.pop("output")
        found.pop("compute")
        return found

    @property
    def outside(self) -> dict[str, OutsideFile]:
        """The list, the encoders and the detector."""
        config = self._config
        found = {"list": OutsideFile(config.clips.csv or config.clips.mmsa or "", lambda: self._listed.sha256)}
        if config.image.encoder is not None:
            found |= encoder_content(config.image.encoder, weights=True)
        if config.faces.kind != "none":
            encoder = config.expression.encoder or ""
            is_file = encoder.endswith(".onnx")
            found |= {"expression": content_of(encoder)} if is_file else encoder_content(encoder, weights=True)
        if config.faces.kind == "yunet":
            found["detector"] = content_of(config.faces.path or "")
        return found

    def versions(self) -> Mapping[str, str]:
        """Sizes and times of change of the clips' files and of OpenFace's output by path, without missing ones."""
        return self._versions

    def run(self, work: Work, name: str) -> None:
        """Extract the clips into a folder of the stage, or find that this was done.

        Args:
            work: the stage.
            name: name of the folder.
        """
        from vadv_dist.features.extract import extract

        target = work.folder / name
        known = find_json(work.folder / CLIPS) or {}
        if known and known["versions"] != self._versions and not self._is_same(known, work):
            for folder in (target, target.with_name(f"{name}.work")):
                with contextlib.suppress(FileNotFoundError):
                    remove_tree(folder)
            known = {}
        document = {"versions": dict(self._versions), "sha256": known.get("sha256", {})}
        write_json(work.folder / CLIPS, document)
        extract(extraction_config(self._section, str(target), self._where), work.console)
        if not document["sha256"]:
            write_json(work.folder / CLIPS, {**document, "sha256": self._hashes(target)})

    @functools.cached_property
    def _listed(self) -> ClipList:
        return list_clips(self._config.clips)

    @functools.cached_property
    def _places(self) -> dict[str, Location]:
        """The files by path."""
        listed = self._listed
        found = {path: join(listed.root, path) for path in sorted({clip.path for clip in listed.clips})}
        if self._config.faces.kind == "openface":
            folder = location(self._config.faces.path or "")
            found |= {f"faces/{name}": folder / name for name in files_below(folder)}
        return found

    @functools.cached_property
    def _versions(self) -> dict[str, str]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = pool.map(lambda place: version_of(str(place)), self._places.values())
            return {path: version for path, version in zip(self._places, found, strict=True) if version}

    def _is_same(self, known: Mapping[str, Any], work: Work) -> bool:
        """Whether all files have the content of the last extraction; those with the same version are not read."""
        versions, hashes = known["versions"], known["sha256"]
        touched = [path for path, version in self._versions.items() if versions.get(path) != version]
        if versions.keys() != self._versions.keys() or not set(touched) <= set(hashes):
            return False
        work.console.print(f"comparing {len(touched):,} files with those that were extracted", highlight=False)
        return self._sha256(touched) == {path: hashes[path] for path in touched}

    def _hashes(self, target: Location) -> dict[str, str]:
        """SHA-256 of each file: as it was extracted, or as it is now for those of rejected clips and of OpenFace."""
        with local_copy(target / "sources.parquet") as file:
            read = read_table(file, ["path", "sha256"]).to_pydict()
        found = dict(zip(read["path"], read["sha256"], strict=True))
        return self._sha256([path for path in self._versions if path not in found]) | found

    def _sha256(self, paths: list[str]) -> dict[str, str]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return dict(zip(paths, pool.map(lambda path: sha256_file(self._places[path]), paths), strict=True))


def extraction_config(config: ExtractDataConfig, out: str, where: str) -> ExtractConfig:
    """The configuration of an extraction.

    Args:
        config: the section.
        out: where to write the data set.
        where: the section's name, for messages.
    Raises:
        UserError: a mistake in it.
    """
    raw = read_yaml(config_path(config.config))
    for name, value in {**config.overrides, "output.uri": out}.items():
        set_field(raw, ExtractConfig, name, value)
    return build(ExtractConfig, raw, (), where)
