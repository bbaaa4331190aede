"""Small retrieval students and files of vectors, for the tests of export and retrieval: not a test itself."""

from pathlib import Path

import numpy as np
import torch

from vadv_dist.inference.retrieval_card import RetrievalCard
from vadv_dist.inference.retrieval_export import export_pair
from vadv_dist.inference.towers import towers_of
from vadv_dist.students.eics import Eics

AUDIO, VISUAL, CLASSES = 6, 9, 3
WIDTHS = {"audio": AUDIO, "visual": VISUAL}


def make_pair(seed: int = 0) -> Eics:
    torch.manual_seed(seed)
    student = Eics(AUDIO, VISUAL, CLASSES, hidden=8, layers=3, explicit=1.0, gap=1.0, implicit=1.0, dropout=0.1)
    return student.eval()


def make_pair_card(**changes) -> RetrievalCard:
    facts = {
        "name": "pair",
        "student": "eics",
        "title": "EICS",
        "taught": True,
        "classes": CLASSES,
        "metrics": {"valid": {"map": 0.75, "map_class": float("nan")}},
        "data": [{"uri": "data/vegas", "fingerprint": "f00d", "rows": {"train": 20, "valid": 5}}],
        "config": {"run": {"name": "pair"}},
    }
    return RetrievalCard(**{**facts, **changes})


def export_small(out: Path, student: Eics | None = None, **options) -> Path:
    export_pair(towers_of(student or make_pair(), WIDTHS), WIDTHS, out, card=make_pair_card(), **options)
    return out


def unit_embeddings(student: Eics, audio: np.ndarray, visual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of the student itself, scaled to length 1."""
    with torch.no_grad():
        pair = student(torch.from_numpy(audio), torch.from_numpy(visual))
    return tuple(torch.nn.functional.normalize(side, dim=1).numpy() for side in (pair[0], pair[1]))


def random_vectors(rows: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
