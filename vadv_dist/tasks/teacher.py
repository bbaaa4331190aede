"""Build the teacher of a run, the same for every task."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vadv_dist.config.sections import Config, TeacherConfig
from vadv_dist.data.prompts import load_prompts
from vadv_dist.data.sources import Sources
from vadv_dist.models.teacher import Teacher


def teacher_of(config: Config, sources: Sources) -> Teacher:
    """The teacher for the features and the kind of labels of a run's data sets."""
    shapes = {name: spec.shape for name, spec in sources.features.items()}
    section, label = config.teacher, sources.label
    found = load_prompts(sources.datasets[0]) if section.prompting != "none" else None
    return build_teacher(
        section,
        visual=shapes.get("visual") if section.use_visual else None,
        face=shapes.get("face") if section.use_face else None,
        audio=shapes.get("audio") if section.use_audio else None,
        prompts=None if found is None else torch.from_numpy(found),
        num_classes=label.num_prompts,
        predicts_classes=label.is_class,
    )


def build_teacher(
    config: TeacherConfig | None = None,
    *,
    visual: Sequence[int] | None = None,
    face: Sequence[int] | None = None,
    audio: Sequence[int] | None = None,
    prompts: Tensor | None = None,
    num_classes: int = 2,
    predicts_classes: bool = False,
) -> Teacher:
    """Build a teacher for features of given shapes.

    Args:
        config: its section of the configuration; None takes the defaults.
        visual: shape [T, N, D] of the visual features of a clip; None without that branch.
        face: shape [T, E] of its face features; None without that branch.
        audio: shape [T, D] or [D] of its audio features; None without that branch.
        prompts: embeddings of the classes' prompts, [C, D]; None draws trained ones.
        num_classes: C; two sides of the threshold for sentiment.
        predicts_classes: whether its logits are scores of the classes instead of sentiment.
    Raises:
        UserError: the width cannot be split among the heads, or the configuration does not fit the shapes.
    """
    teacher = config or TeacherConfig()
    width = teacher.width or (visual[-1] if visual is not None else 64)
    heads = teacher.heads or max(1, width // 64)
    return Teacher(
        visual_shape=None if visual is None else (visual[0], visual[1], visual[2]),
        face_shape=None if face is None else (face[0], face[1]),
        audio_shape=None if audio is None else tuple(audio),
        width=width,
        hidden=teacher.hidden,
        heads=heads,
        cct_layers=teacher.cct_layers,
        mit_layers=teacher.mit_layers,
        prompt_layers=teacher.prompt_layers,
        prompt_alpha=teacher.prompt_alpha,
        prompting=teacher.prompting,
        similarity=teacher.similarity,
        num_classes=num_classes,
        predicts_classes=predicts_classes,
        prompts=prompts,
        dropout=teacher.dropout,
    )
