"""The model card of an exported student: description, usage, scores, training data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from vadv_dist.evaluation.conformal import ErrorQuantiles
from vadv_dist.evaluation.description import Metric
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.inference.card_metadata import (
    UNSTATED,
    Publication,
    Subject,
    data_name,
    metadata,
    public_config,
    without_place,
)
from vadv_dist.inference.card_words import CardWords, words_of_classes, words_of_numbers
from vadv_dist.inference.server_recipes import recipes_of_class, recipes_of_onnx, recipes_of_sentence_layout

if TYPE_CHECKING:
    from vadv_dist.inference.manifest import ExportManifest

# Lowest and highest value by metric and split.
Intervals = Mapping[str, Mapping[str, tuple[float, float]]]


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
        labels: range and threshold of the labels, which determine the metrics; None for classes, and for exports of
            older versions.
        classes: names of the classes that it predicts; empty if it predicts a number.
        words: numbers by the words that stood for them in the training data; empty if it had none, or several
            data sets with different ones.
        calibration: the line in the student's last layer, in words; empty without one.
        context: maximum number of utterances before a text in its video that the student reads after it.
        separator: what separates them.
        intervals: 95 % intervals of metrics over the clips of a split, where its predictions are known.
        publication: what the owner states.
        errors: of the student on the validation split; None for exports of older versions.
    """

    name: str
    encoder: str
    max_tokens: int
    metrics: Mapping[str, Mapping[str, float | None]]
    data: Sequence[Mapping[str, Any]]
    config: Mapping[str, Any]
    labels: LabelScale | None = None
    classes: tuple[str, ...] = ()
    words: Mapping[str, float] = field(default_factory=dict)
    calibration: str = ""
    context: int = 0
    separator: str = ""
    intervals: Intervals = field(default_factory=dict)
    publication: Publication = UNSTATED
    errors: ErrorQuantiles | None = None


_LIBRARIES = {"pytorch": "transformers", "onnx": "onnx", "sentence-transformers": "sentence-transformers"}

_ONNX = """```python
import onnxruntime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
session = onnxruntime.InferenceSession("path/to/this/folder/model.onnx")
tokens = tokenizer(["what a wonderful film"], truncation=True, padding=True, return_tensors="np")
session.run(["logits"], {name: tokens[name] for name in ("input_ids", "attention_mask")})  # [array of shape [rows, 1]]
```"""

_SENTENCE_TRANSFORMERS = """```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/to/this/folder")
model.encode(["what a wonderful film"])  # array of shape [rows, 1]
```"""


def words_of(card: ModelCard) -> CardWords:
    """What the card says about its kind of labels."""
    return words_of_classes(card.classes) if card.classes else words_of_numbers(card.labels)


def render(manifest: "ExportManifest", *, format: str = "pytorch", int8: str = "") -> str:
    """Write the model card as Markdown with the metadata block of the Hugging Face Hub.

    Args:
        manifest: facts about the student.
        format: what the folder holds: `pytorch`, `onnx` or `sentence-transformers`.
        int8: what int8 costs, in words, for a file in int8; empty for others.
    """
    card, words = manifest.card, words_of(manifest.card)
    objective = card.config.get("objective")
    has_teacher = isinstance(objective, Mapping) and objective.get("kind", "none") != "none"
    encoder = without_place(card.encoder)
    in_config = card.config.get("student")
    from_scratch = isinstance(in_config, Mapping) and in_config.get("pretrained") is False
    found = ((split, words.remark(values)) for split, values in card.metrics.items())
    remarks = [f"On the {split} split the student {text}." for split, text in found if text is not None]
    subject = Subject(
        card.name,
        "text-classification",
        words.task,
        _LIBRARIES[format],
        (words.task.replace(" ", "-"), "knowledge-distillation"),
        "" if from_scratch else card.encoder,
    )
    parts = [
        metadata(subject, card.publication, card.metrics, words.metrics, card.data),
        f"# {card.name}",
        f"Predicts the sentiment of a spoken sentence from its words, as {words.prediction}. It is the text student of "
        "VideoAdviser "
        "([arXiv:2309.15494](https://arxiv.org/abs/2309.15494)), trained with "
        + ("a teacher that saw the video." if has_teacher else "no teacher."),
        f"Encoder `{encoder}`{' (trained from scratch)' if from_scratch else ''}, "
        f"{'first-token' if manifest.pooling == 'cls' else 'mean'} pooling, a head with "
        f"{manifest.hidden} hidden units and tanh. Texts are truncated to {card.max_tokens} tokens.",
        "## Use",
        *_use(manifest, format),
        *([f"**The file is in int8.** {int8}"] if int8 else []),
        *([_context(card)] if card.context else []),
        "## Intended use and limits",
        _limits(card, words),
        "## Metrics",
        metrics_table(card.metrics, words.metrics, card.intervals),
        *([words.notes] if words.notes else []),
        *remarks,
        *([_calibration(card.calibration)] if card.calibration else []),
        *([_intervals(card.errors)] if card.errors is not None else []),
        "## Training data",
        data_lines(card.data),
        "## License",
        license_note(
            card.publication, "the data above" if from_scratch else f"the encoder `{encoder}` and from the data above"
        ),
        "## Configuration",
        configuration(card.config),
    ]
    return "\n\n".join(parts) + "\n"


def _use(manifest: "ExportManifest", format: str) -> list[str]:
    if format == "onnx":
        if not manifest.card.classes:
            return [_ONNX, *recipes_of_onnx()]
        return [_ONNX.replace("[rows, 1]", "[rows, classes]"), "A softmax of a row gives the probabilities."]
    if format == "sentence-transformers":
        note = "Mind that sentence-transformers calls the prediction an embedding; do not normalize it."
        return [_SENTENCE_TRANSFORMERS, note, *recipes_of_sentence_layout(manifest.encoder_class)]
    return _transformers(manifest)


def _limits(card: ModelCard, words: CardWords) -> str:
    languages = ", ".join(card.publication.languages)
    return (
        "Meant for short spoken sentences like those of the training data, to measure the sentiment of many of them. "
        f"{words.error} The student reads words alone: tone and face do not reach it.{words.range} The language of "
        f"its texts is {languages or 'that of the training data, which its owner did not state'}; others were not "
        "evaluated. It was not evaluated for bias between groups of speakers, and must not decide about persons."
    )


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


def _intervals(errors: ErrorQuantiles) -> str:
    width = errors.widths[89]
    known = "" if width is None else f": 90 % of labels are within ± {width:.3f} of the prediction"
    return (
        f"**Uncertainty{known}** on the {errors.clips:,} clips of the validation split. `vadv predict --interval 0.9` "
        "adds such an interval to each prediction (split conformal, from the errors in `vadv_export.json`). It holds "
        "for new clips like these, and a little less often than stated, because the epoch was chosen on the same clips."
    )


def _transformers(manifest: "ExportManifest") -> list[str]:
    if manifest.card.classes:
        return _transformers_of_classes(manifest)
    trust = "" if manifest.custom_reason is None else ", trust_remote_code=True"
    return [
        "```python\nfrom transformers import pipeline\n\n"
        f'predict = pipeline("text-classification", model="path/to/this/folder"{trust})\n'
        'predict("what a wonderful film", truncation=True)  # [{"label": "sentiment", "score": <the number>}]\n```',
        _loading(manifest.architecture, manifest.custom_reason),
        *(recipes_of_class(manifest.architecture) if manifest.custom_reason is None else []),
    ]


def _transformers_of_classes(manifest: "ExportManifest") -> list[str]:
    trust = "" if manifest.custom_reason is None else ", trust_remote_code=True"
    label = manifest.card.classes[-1]
    how = f"The folder loads as `{manifest.architecture}` of transformers without any other package."
    if manifest.custom_reason is not None:
        how = (
            f"**This folder needs `trust_remote_code=True`**: {manifest.custom_reason}, so it includes its own class "
            f"`{manifest.architecture}` in `modeling_text_student.py`, which imports only torch and transformers."
        )
    return [
        "```python\nfrom transformers import pipeline\n\n"
        f'predict = pipeline("text-classification", model="path/to/this/folder"{trust}, top_k=None)\n'
        'predict("what a wonderful film", truncation=True)\n'
        f'# [{{"label": "{label}", "score": <probability>}}, …]\n```',
        how,
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
        "reports that it does not know the class, but its score is still the prediction itself. Servers that run no "
        "code of a model, such as Text Embeddings Inference and vLLM, do not load this folder. `vadv export --format "
        "onnx` and `--format sentence-transformers` write the same student without code."
    )


def metrics_table(
    metrics: Mapping[str, Mapping[str, float | None]], known: Sequence[Metric], intervals: Intervals
) -> str:
    """A table of metrics by split, in the order of `known`; those without a value in any split are left out.

    Args:
        metrics: values by split and key.
        known: the metrics to show.
        intervals: their intervals, as far as they are known.
    """
    if not metrics:
        return "Not evaluated."
    shown = [metric for metric in known if any(metric.key in values for values in metrics.values())]
    lines = [
        "| split | " + " | ".join(metric.title for metric in shown) + " |",
        "|---|" + "---:|" * len(shown),
    ]
    for split, values in metrics.items():
        ends = intervals.get(split, {})
        cells = (_cell(values.get(metric.key), ends.get(metric.key)) for metric in shown)
        lines.append(f"| {split} | " + " | ".join(cells) + " |")
    table = "\n".join(lines)
    if not any(intervals.get(split) for split in metrics):
        return table
    return f"{table}\n\nIn brackets: 95 % intervals over the clips of the split (bootstrap), for this one training."


def _cell(value: float | None, ends: tuple[float, float] | None) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.4f}" + (f" [{ends[0]:.4f}, {ends[1]:.4f}]" if ends else "")


def data_lines(data: Sequence[Mapping[str, Any]]) -> str:
    """A list of the data sets that a student was trained on, by name and fingerprint."""
    return "\n".join(_data_line(entry) for entry in data) or "Not recorded."


def license_note(publication: Publication, sources: str) -> str:
    """What is known about the license of the weights.

    Args:
        publication: what the owner states.
        sources: what the weights derive from, in words.
    """
    stated = (
        f"The weights are published under `{publication.license}`."
        if publication.license
        else "The license of the weights was not stated."
    )
    return (
        f"{stated} The weights derive from {sources}, whose licenses apply to them. The code in this folder and the "
        "code that trained it are licensed under Apache-2.0."
    )


def configuration(config: Mapping[str, Any]) -> str:
    """A run's configuration, without places, as a block of YAML."""
    return f"```yaml\n{yaml.safe_dump(public_config(config), sort_keys=False, allow_unicode=True).strip()}\n```"


def _data_line(entry: Mapping[str, Any]) -> str:
    rows = ", ".join(f"{count} {split}" for split, count in dict(entry.get("rows", {})).items())
    if share := entry.get("train_share"):
        rows += f", of which {share['rows']} train clips were used"
    fingerprint = entry.get("fingerprint", "?")
    return f"- `{data_name(entry)}`: {rows or 'rows not recorded'}; fingerprint `{fingerprint}`"
