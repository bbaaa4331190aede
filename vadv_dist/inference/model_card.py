"""The model card of an exported student: description, usage, scores, training data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from vadv_dist.evaluation.description import Metric
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.evaluation.remarks import remark

if TYPE_CHECKING:
    from vadv_dist.inference.manifest import ExportManifest


@dataclass(frozen=True)
class ModelCard:
    """Facts about a student for its export.

    Args:
        name: name of the run.
        encoder: name or path of the encoder that training started from.
        max_tokens: texts are truncated to this many tokens, in training and in use.
        metrics: the student's metrics by split (`valid`, `test`), keyed as by `LabelScale.score`; NaN or None if
            undefined.
        data: one entry per training data set: `uri`, `fingerprint`, `rows` by split.
        config: the run's configuration, as plain containers.
        labels: range and threshold of the labels, which determine the metrics; None for exports of older versions.
        calibration: the line in the student's last layer, in words; empty without one.
        context: maximum number of utterances before a text in its video that the student reads after it.
        separator: what separates them.
    """

    name: str
    encoder: str
    max_tokens: int
    metrics: Mapping[str, Mapping[str, float | None]]
    data: Sequence[Mapping[str, Any]]
    config: Mapping[str, Any]
    labels: LabelScale | None = None
    calibration: str = ""
    context: int = 0
    separator: str = ""


_ONNX = """```python
import onnxruntime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
session = onnxruntime.InferenceSession("path/to/this/folder/model.onnx")
tokens = tokenizer(["what a wonderful film"], truncation=True, padding=True, return_tensors="np")
session.run(["prediction"], {name: tokens[name] for name in ("input_ids", "attention_mask")})  # [array, [rows]]
```"""


def render(manifest: "ExportManifest", *, onnx: bool = False) -> str:
    """Write the model card as Markdown with the metadata block of the Hugging Face Hub.

    Args:
        manifest: facts about the student.
        onnx: whether the folder holds an ONNX file.
    """
    card, labels = manifest.card, manifest.card.labels
    objective = card.config.get("objective")
    has_teacher = isinstance(objective, Mapping) and objective.get("kind", "none") != "none"
    unit = ""
    if labels is not None:
        unit = f", which are in [{labels.low:g}, {labels.high:g}] and positive from {labels.threshold:g} on"
    found = ((split, remark(values)) for split, values in card.metrics.items())
    remarks = [f"On the {split} split the student {text}." for split, text in found if text is not None]
    parts = [
        f"---\nlibrary_name: {'onnx' if onnx else 'transformers'}\npipeline_tag: text-classification\n"
        "tags:\n- sentiment-regression\n- knowledge-distillation\n---",
        f"# {card.name}",
        "Predicts the sentiment of a spoken sentence from its words, as one number in the units of the training "
        f"labels{unit}. It is the text student of VideoAdviser "
        "([arXiv:2309.15494](https://arxiv.org/abs/2309.15494)), trained with "
        + ("a teacher that saw the video." if has_teacher else "no teacher."),
        f"Encoder `{card.encoder}`, {'first-token' if manifest.pooling == 'cls' else 'mean'} pooling, a head with "
        f"{manifest.hidden} hidden units and tanh. Texts are truncated to {card.max_tokens} tokens.",
        "## Use",
        *([_ONNX] if onnx else _transformers(manifest)),
        *([_context(card)] if card.context else []),
        "## Metrics",
        metrics_table(card.metrics, (labels or LabelScale()).metrics),
        *([] if labels is None else [" ".join([*labels.notes, *labels.in_words(labels.absent())])]),
        *remarks,
        *([_calibration(card.calibration)] if card.calibration else []),
        "## Training data",
        data_lines(card.data),
        "## Licence",
        f"The weights derive from the encoder `{card.encoder}` and from the data above, whose licences apply to them. "
        "The code in this folder and the code that trained it are licensed under Apache-2.0.",
        "## Configuration",
        configuration(card.config),
    ]
    return "\n\n".join(parts) + "\n"


def _context(card: ModelCard) -> str:
    before = "the utterance" if card.context == 1 else f"up to {card.context} utterances"
    example = card.separator.join(["what a wonderful film", "i saw it twice"])
    return (
        f"**Context.** The student was trained to read a text together with {before} before it in the same video, the "
        f"nearest first, joined by `{card.separator}`: `{example}` predicts the sentiment of “what a wonderful film”, "
        "which was said after “i saw it twice”. The first utterance of a video stands alone."
    )


def _calibration(words: str) -> str:
    return (
        f"The student is {words}. The line is part of the last layer. Metrics of the validation split say little about "
        "it, because it was fitted there."
    )


def _transformers(manifest: "ExportManifest") -> list[str]:
    trust = "" if manifest.custom_reason is None else ", trust_remote_code=True"
    return [
        "```python\nfrom transformers import pipeline\n\n"
        f'predict = pipeline("text-classification", model="path/to/this/folder"{trust})\n'
        'predict("what a wonderful film", truncation=True)  # [{"label": "sentiment", "score": <the number>}]\n```',
        _loading(manifest.architecture, manifest.custom_reason),
    ]


def _loading(architecture: str, custom_reason: str | None) -> str:
    if custom_reason is None:
        return (
            f"The folder loads as `{architecture}` of transformers without any other package. The score is the "
            "prediction itself; no sigmoid is applied."
        )
    return (
        f"**This folder needs `trust_remote_code=True`**: {custom_reason}, so it includes its own class "
        f"`{architecture}` in `modeling_text_student.py`, which imports only torch and transformers. The pipeline "
        "reports that it does not know the class, but its score is still the prediction itself."
    )


def metrics_table(metrics: Mapping[str, Mapping[str, float | None]], known: Sequence[Metric]) -> str:
    """A table of metrics by split, in the order of `known`; those without a value in any split are left out."""
    if not metrics:
        return "Not evaluated."
    shown = [metric for metric in known if any(metric.key in values for values in metrics.values())]
    lines = [
        "| split | " + " | ".join(metric.title for metric in shown) + " |",
        "|---|" + "---:|" * len(shown),
    ]
    for split, values in metrics.items():
        cells = (values.get(metric.key) for metric in shown)
        lines.append(f"| {split} | " + " | ".join("–" if v is None or v != v else f"{v:.4f}" for v in cells) + " |")
    return "\n".join(lines)


def data_lines(data: Sequence[Mapping[str, Any]]) -> str:
    """A list of the data sets that a student was trained on."""
    return "\n".join(_data_line(entry) for entry in data) or "Not recorded."


def configuration(config: Mapping[str, Any]) -> str:
    """A run's configuration as a block of YAML."""
    return f"```yaml\n{yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True).strip()}\n```"


def _data_line(entry: Mapping[str, Any]) -> str:
    rows = ", ".join(f"{count} {split}" for split, count in dict(entry.get("rows", {})).items())
    if share := entry.get("train_share"):
        rows += f", of which {share['rows']} train clips were used"
    return f"- `{entry.get('uri', '?')}`: {rows or 'rows not recorded'}; fingerprint `{entry.get('fingerprint', '?')}`"
