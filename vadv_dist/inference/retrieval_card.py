"""The model card of an exported retrieval student."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vadv_dist.evaluation.retrieval import METRICS, NOTES
from vadv_dist.inference.card_metadata import UNSTATED, Publication, Subject, metadata
from vadv_dist.inference.model_card import Intervals, configuration, data_lines, license_note, metrics_table


@dataclass(frozen=True)
class RetrievalCard:
    """Facts about a retrieval student for its export.

    Args:
        name: name of the run.
        student: kind of the student, such as `eics`.
        title: its name in sentences.
        taught: whether a teacher was trained with it.
        classes: number of classes of the training data.
        metrics: the student's metrics by split (`valid`, `test`), keyed as by `retrieval.score`; NaN or None if
            undefined.
        data: one entry per training data set: `uri`, `fingerprint`, `rows` by split.
        config: the run's configuration, as plain containers.
        intervals: 95 % intervals of metrics over the clips of a split, where its predictions are known.
        publication: what the owner states.
    """

    name: str
    student: str
    title: str
    taught: bool
    classes: int
    metrics: Mapping[str, Mapping[str, float | None]]
    data: Sequence[Mapping[str, Any]]
    config: Mapping[str, Any]
    intervals: Intervals = field(default_factory=dict)
    publication: Publication = UNSTATED


_PYTORCH = """```python
import torch
from modeling_retrieval_student import RetrievalTowers  # in this folder; needs torch and safetensors only

model = RetrievalTowers.load("path/to/this/folder")
with torch.no_grad():
    audio = model.audio_embedding(torch.randn(5, {audio}))  # [5, {embedding}], of length 1
    visual = model.visual_embedding(torch.randn(7, {visual}))  # [7, {embedding}], of length 1
nearest = (audio @ visual.T).topk(3).indices  # the three nearest visual vectors of each audio vector
```"""

_ONNX = """```python
import numpy as np
import onnxruntime

audio = onnxruntime.InferenceSession("audio.onnx")
visual = onnxruntime.InferenceSession("visual.onnx")
a = audio.run(["embedding"], {{"audio": np.random.randn(5, {audio}).astype(np.float32)}})[0]  # [5, {embedding}]
v = visual.run(["embedding"], {{"visual": np.random.randn(7, {visual}).astype(np.float32)}})[0]  # [7, {embedding}]
nearest = np.argsort(-(a @ v.T), axis=1)[:, :3]  # the three nearest visual vectors of each audio vector
```"""


def render(card: RetrievalCard, widths: Mapping[str, int], parameters: int, *, onnx: bool = False) -> str:
    """Write the model card as Markdown with the metadata block of the Hugging Face Hub.

    Args:
        card: the facts.
        widths: of `audio` and `visual` vectors and of an `embedding`.
        parameters: number of weights.
        onnx: whether the folder holds ONNX files.
    """
    tags = ("cross-modal-retrieval", "audio-visual", "knowledge-distillation")
    subject = Subject(card.name, "", "cross-modal retrieval", "onnx" if onnx else "pytorch", tags)
    parts = [
        metadata(subject, card.publication, card.metrics, METRICS, card.data),
        f"# {card.name}",
        f"Embeds audio vectors (width {widths['audio']}) and visual vectors (width {widths['visual']}) of video clips "
        f"in one space (width {widths['embedding']}), where the cosine of two embeddings says whether their clips show "
        f"the same kind of event. It was trained on clips of {card.classes} classes and has {parameters:,} parameters. "
        f"The student is {card.title}, "
        + (
            "distilled from a video teacher as in VideoAdviser ([arXiv:2309.15494](https://arxiv.org/abs/2309.15494))."
            if card.taught
            else "trained without a teacher."
        ),
        "## Use",
        (_ONNX if onnx else _PYTORCH).format(**widths),
        "Vectors must come from the same feature extractors as the training data. Embeddings have length 1, so that a "
        "dot product is the cosine. Where a clip has several vectors of a modality, it is represented by their mean.",
        "## Intended use and limits",
        "Meant to find clips of one modality by a clip of the other, among clips like those of the training data. It "
        "ranks clips by the kind of event that they show; it does not say whether any of them shows it, and events "
        "outside the training classes were not evaluated.",
        "## Metrics",
        metrics_table(card.metrics, METRICS, card.intervals),
        " ".join(NOTES),
        "## Training data",
        data_lines(card.data),
        "## License",
        license_note(card.publication, "the data above"),
        "## Configuration",
        configuration(card.config),
    ]
    return "\n\n".join(parts) + "\n"
