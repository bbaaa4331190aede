"""Export a retrieval student as a PyTorch folder or as ONNX files, and load such a folder after verifying it."""

import dataclasses
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from vadv_dist.errors import UserError
from vadv_dist.formats.tensors import save_tensors
from vadv_dist.inference.card_metadata import Publication
from vadv_dist.inference.manifest import (
    MANIFEST,
    ONNX,
    PYTORCH,
    RETRIEVAL,
    WEIGHTS,
    document,
    format_of,
    read_manifest,
    verified,
)
from vadv_dist.inference.model_card import Intervals
from vadv_dist.inference.onnx_file import open_session, require_onnx, write_onnx
from vadv_dist.inference.onnx_student import OnnxTowers
from vadv_dist.inference.retrieval_card import RetrievalCard, render
from vadv_dist.inference.towers import config_text
from vadv_dist.models import retrieval_towers
from vadv_dist.models.retrieval_towers import RetrievalTowers
from vadv_dist.storage import (
    Location,
    atomic_directory,
    file_entries,
    remove_tree,
    write_json,
)

MODELING_FILE = "modeling_retrieval_student.py"
MODALITIES = ("audio", "visual")


@dataclass(frozen=True)
class RetrievalManifest:
    """The contents of a retrieval student's `vadv_export.json`, apart from the files' hashes.

    Args:
        card: facts about the student.
        widths: of `audio` and `visual` vectors and of an `embedding`.
    """

    card: RetrievalCard
    widths: Mapping[str, int]


def export_pair(
    towers: RetrievalTowers,
    widths: Mapping[str, int],
    out: Location,
    *,
    card: RetrievalCard,
    format: str = PYTORCH,
    replace: bool = False,
) -> None:
    """Write a retrieval student as a folder that needs no other code, completely or not at all.

    Embeddings are those of the student within 1e-5, scaled to length 1. Weights are fp32.

    Args:
        towers: the student, as `towers_of` returns it.
        widths: of `audio` and `visual` vectors.
        out: the folder to create; the caller checks that it does not exist.
        card: contents of the model card and of `vadv_export.json`.
        format: `pytorch`, or `onnx` for one file per tower.
        replace: replace an existing folder.
    Raises:
        UserError: a package for ONNX is missing.
    """
    if format == ONNX:
        require_onnx()
    with torch.no_grad():
        embedding = towers.audio_embedding(torch.zeros(1, widths["audio"])).shape[1]
    widths = {**{name: widths[name] for name in MODALITIES}, "embedding": embedding}
    with atomic_directory(out, manifest=MANIFEST) as upload:
        folder = upload.folder
        if format == ONNX:
            for name in MODALITIES:
                example = torch.randn(3, widths[name], generator=torch.Generator().manual_seed(0))
                write_onnx(_OneTower(towers, name), folder / f"{name}.onnx", {name: example}, ("rows",), "embedding")
        else:
            (folder / "config.json").write_text(config_text(towers), encoding="utf-8")
            save_tensors(towers.state_dict(), folder / WEIGHTS, metadata={"format": "pt"})
            shutil.copyfile(retrieval_towers.__file__, folder / MODELING_FILE)
        parameters = sum(value.numel() for value in towers.buffers())
        readme = render(card, widths, parameters, onnx=format == ONNX)
        (folder / "README.md").write_text(readme, encoding="utf-8")
        fields = {"task": RETRIEVAL, "format": format, **asdict(card), "widths": widths}
        write_json(folder / MANIFEST, document(fields, file_entries(folder)))
        if replace and out.is_dir():
            (out / MANIFEST).unlink(missing_ok=True)
            remove_tree(out)


def export_again(
    source: Path,
    out: Location,
    metrics: Mapping[str, Mapping[str, float | None]],
    format: str = PYTORCH,
    *,
    intervals: Intervals,
    publication: Publication | None,
) -> None:
    """Copy a retrieval student's export, with further metrics by split in its card.

    Args:
        source: the export.
        out: the folder to create.
        metrics, intervals: of further splits.
        format: `pytorch` or `onnx`.
        publication: what the owner states; None keeps what `source` says.
    Raises:
        UserError: `source` has no student of retrieval, or one with damaged files.
    """
    towers, manifest = load_towers(source)
    card = dataclasses.replace(
        manifest.card,
        metrics={**manifest.card.metrics, **metrics},
        intervals={**manifest.card.intervals, **intervals},
        publication=publication or manifest.card.publication,
    )
    export_pair(towers, manifest.widths, out, card=card, format=format)


def load_towers(folder: Path) -> tuple[RetrievalTowers, RetrievalManifest]:
    """Load an export in eval mode; every file is verified before any is loaded, and no code from it is executed.

    Raises:
        UserError: not an export of retrieval, or a file is missing, damaged or not listed.
    """
    manifest = verify_retrieval(folder)
    towers = RetrievalTowers.load(folder)
    try:
        towers(*(torch.zeros(1, manifest.widths[name]) for name in ("audio", "visual")))
    except (RuntimeError, KeyError):
        raise UserError(
            f"The weights in {folder} are not those of the model that its config.json describes. Export the run again."
        ) from None
    return towers, manifest


def load_pair(folder: Path) -> tuple[RetrievalTowers | OnnxTowers, RetrievalManifest]:
    """Load an export for torch or for onnxruntime, whose embeddings are the same; see `load_towers`.

    Raises:
        UserError: as in `load_towers`, or onnxruntime is missing.
    """
    if format_of(read_manifest(folder)) != ONNX:
        return load_towers(folder)
    manifest = verify_retrieval(folder, ONNX)
    return OnnxTowers({name: open_session(folder / f"{name}.onnx") for name in MODALITIES}), manifest


def verify_retrieval(folder: Path, *formats: str) -> RetrievalManifest:
    """Check every file of a retrieval student's export against its manifest.

    Args:
        folder: the export.
        formats: those that the caller loads; without any, `PYTORCH`.
    Raises:
        UserError: see `manifest.verify_export`.
    """
    needed = {PYTORCH: {"config.json", WEIGHTS}, ONNX: {f"{name}.onnx" for name in MODALITIES}}
    return verified(folder, RETRIEVAL, _parse, {name: needed[name] for name in formats or (PYTORCH,)})


def _parse(raw: Mapping[str, Any]) -> RetrievalManifest:
    manifest = RetrievalManifest(
        TypeAdapter(RetrievalCard).validate_python(dict(raw)),
        TypeAdapter(dict[str, int]).validate_python(raw["widths"]),
    )
    if missing := {*MODALITIES, "embedding"} - set(manifest.widths):
        raise ValueError(f"it has no width of {', '.join(sorted(missing))}")
    return manifest


class _OneTower(nn.Module):
    """One tower of a pair, as a module of its own."""

    def __init__(self, towers: RetrievalTowers, name: str) -> None:
        super().__init__()
        self.towers, self._name = towers, name

    def forward(self, vectors: Tensor) -> Tensor:
        """Embed vectors of the tower's modality."""
        embed = self.towers.audio_embedding if self._name == "audio" else self.towers.visual_embedding
        return embed(vectors)
