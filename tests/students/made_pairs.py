"""All retrieval students in small, and made clips that they are tested on: not a test itself."""

from collections.abc import Callable

import torch
from torch import Tensor

from vadv_dist.objectives.outputs import Rows
from vadv_dist.students.base import RetrievalStudent
from vadv_dist.students.c_cca import CCca
from vadv_dist.students.c_dcca import CDcca
from vadv_dist.students.cctl import Cctl
from vadv_dist.students.dclma import Dclma
from vadv_dist.students.dscmr import Dscmr
from vadv_dist.students.eics import Eics
from vadv_dist.students.instance_loss import InstanceLoss
from vadv_dist.students.random_projection import RandomProjection
from vadv_dist.students.tnn_c_cca import TnnCCca
from vadv_dist.students.vae_cca import VaeCca

AUDIO, VISUAL, CLASSES = 12, 20, 4
WIDTHS = (AUDIO, VISUAL, CLASSES)

_VAE = {
    "reconstruction": 1.0,
    "divergence": 0.01,
    "discrimination": 1.0,
    "similarity": 0.1,
    "invariance": 0.1,
    "center": 0.01,
}
STUDENTS: dict[str, Callable[[], RetrievalStudent]] = {
    "eics": lambda: Eics(*WIDTHS, hidden=16, layers=3, explicit=1.0, gap=1.0, implicit=1.0, dropout=0.0),
    "dscmr": lambda: Dscmr(*WIDTHS, hidden=32, width=16, similarity=1e-3, invariance=0.1),
    "c-cca": lambda: CCca(*WIDTHS, components=None, ridge=1e-4, power=0.0),
    "c-dcca": lambda: CDcca(*WIDTHS, hidden=12, components=None, ridge=1e-3, dropout=0.0, paired=0.2),
    "tnn-c-cca": lambda: TnnCCca(
        *WIDTHS, components=None, ridge=1e-4, hidden=16, width=6, dropout=0.0, margin=0.3, mining="all"
    ),
    "cctl": lambda: Cctl(*WIDTHS, hidden=16, dropout=0.0, margin=0.3, triplet=1.0),
    "instance-loss": lambda: InstanceLoss(*WIDTHS, hidden=32, width=16, dropout=0.0, margin=1.0, ranking=1.0),
    "random": lambda: RandomProjection(*WIDTHS, width=8),
    "dclma": lambda: Dclma(*WIDTHS, hidden=128, width=16, dropout=0.0, temperature=0.2, contrast=0.01),
    "vae-cca": lambda: VaeCca(*WIDTHS, hidden=32, width=16, **_VAE),
}
CLOSED = ("c-cca", "random")
TRAINED = tuple(name for name in STUDENTS if name not in CLOSED)


def build(name: str, seed: int = 0) -> RetrievalStudent:
    """A student with seeded weights, in float64, whose closed-form part is fitted."""
    torch.manual_seed(seed)
    student = STUDENTS[name]().double()
    if name in ("c-cca", "tnn-c-cca"):
        audio, visual, label = clips(200)
        student.fit([(audio[:90], visual[:90], label[:90]), (audio[90:], visual[90:], label[90:])])
    return student


def clips(num: int, seed: int = 0, noise: float = 0.8) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors around the means of their class, which differ between the modalities, and the classes; float64."""
    world = torch.Generator().manual_seed(77)
    means_audio = torch.randn(CLASSES, AUDIO, generator=world, dtype=torch.float64)
    means_visual = torch.randn(CLASSES, VISUAL, generator=world, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(CLASSES, (num,), generator=generator)
    audio = means_audio[label] + noise * torch.randn(num, AUDIO, generator=generator, dtype=torch.float64)
    visual = means_visual[label] + noise * torch.randn(num, VISUAL, generator=generator, dtype=torch.float64)
    return audio, visual, label


def rows_of(label: Tensor, valid: Tensor | None = None, num_rows: int | None = None) -> Rows:
    """Rows of a batch; by default all count."""
    valid = torch.ones(len(label)) if valid is None else valid
    total = int(valid.sum()) if num_rows is None else num_rows
    return Rows(label.double(), valid, torch.arange(len(label)), None, total, total)
