"""What int8 costs: predictions of a quantized ONNX file compared with those of the file in fp32, on stated texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vadv_dist.errors import UserError
from vadv_dist.inference.onnx_file import open_session
from vadv_dist.inference.onnx_student import OnnxStudent
from vadv_dist.inference.text_table import TextTable, require_table
from vadv_dist.storage import Location, local_copy

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FloatArray = npt.NDArray[np.float32]

# More texts change the means by less than the card shows.
MAX_TEXTS = 1000

# For a student whose run has no texts at hand. In English, like the corpora of the shipped recipes.
SAMPLE_TEXTS = (
    "what a wonderful film",
    "i did not like it at all",
    "the plot was fine but the acting was terrible",
    "it was okay i guess",
    "honestly the best thing i have seen this year",
    "um i mean it has some good moments",
    "do not waste your money on this one",
    "the music was beautiful and the ending made me cry",
    "so yeah it is two hours long",
    "he plays a teacher who moves to a small town",
    "i really really hated the second half",
    "it is not bad but it is not great either",
    "i would watch it again with my family",
    "the jokes were old and nobody laughed",
    "i expected much more from this director",
    "and that was the only scene that i enjoyed",
)


@dataclass(frozen=True)
class TextSample:
    """Texts to compare predictions on.

    Attributes:
        texts: the texts, none of them empty.
        source: where they come from, in words.
        label: their labels, [R]; None if unknown.
    """

    texts: Sequence[str]
    source: str
    label: npt.NDArray[Any] | None = None

    def bounded(self) -> "TextSample":
        """At most `MAX_TEXTS` of them, evenly spaced."""
        if len(self.texts) <= MAX_TEXTS:
            return self
        rows = np.linspace(0, len(self.texts) - 1, MAX_TEXTS).astype(int)
        label = None if self.label is None else self.label[rows]
        return TextSample([self.texts[row] for row in rows], f"{MAX_TEXTS} of {self.source}", label)


def texts_of_file(path: Location, text_column: str = "text") -> TextSample:
    """The texts of a .csv or .parquet file.

    Raises:
        UserError: the file is unreadable, has no such column, or has an empty text.
    """
    require_table(path)
    with local_copy(path) as copy:
        table = TextTable(copy, text_column)
        table.check_texts()
        return TextSample([text for piece in table.texts() for text in piece], path.name)


def sample_texts() -> TextSample:
    """The texts of this file."""
    return TextSample(SAMPLE_TEXTS, "sentences that come with vadv")


@dataclass(frozen=True)
class Int8Cost:
    """Differences of predictions in int8 from those in fp32, in label units, or of probabilities of classes.

    Attributes:
        texts, source: number of texts, and where they come from.
        mean, largest: mean and largest absolute difference.
        spread: standard deviation of the predictions in fp32.
        error_fp32, error_int8: mean absolute error of both, or share of wrong classes; None without labels.
        changed: share of texts whose predicted class differs; None for numbers.
    """

    texts: int
    source: str
    mean: float
    largest: float
    spread: float
    error_fp32: float | None = None
    error_int8: float | None = None
    changed: float | None = None

    def sentence(self) -> str:
        """In words."""
        if self.changed is not None:
            return self._sentence_of_classes(self.changed)
        said = (
            f"On {self.texts:,} texts ({self.source}), int8 predictions differ from those in fp32 by {self.mean:.4f} "
            f"on average and {self.largest:.4f} at most; those in fp32 have standard deviation {self.spread:.4f}."
        )
        if self.error_fp32 is None or self.error_int8 is None:
            return said
        change = self.error_int8 - self.error_fp32
        return (
            f"{said} The mean absolute error is {self.error_int8:.4f} in int8 and {self.error_fp32:.4f} in fp32 "
            f"({change:+.4f})."
        )

    def _sentence_of_classes(self, changed: float) -> str:
        said = (
            f"On {self.texts:,} texts ({self.source}), int8 predicts another class than fp32 for {changed:.1%}; "
            f"probabilities differ by {self.mean:.4f} on average and {self.largest:.4f} at most."
        )
        if self.error_fp32 is None or self.error_int8 is None:
            return said
        return f"{said} The accuracy is {1 - self.error_int8:.1%} in int8 and {1 - self.error_fp32:.1%} in fp32."


def _error(predictions: FloatArray, label: npt.NDArray[Any]) -> float:
    """Mean absolute error, or the share of wrong classes of probabilities [R, C]."""
    wrong = predictions.argmax(axis=1) != label if predictions.ndim == 2 else np.abs(predictions - label)
    return float(wrong.mean())


def int8_cost(
    fp32: Path,
    int8: Path,
    tokenizer: "PreTrainedTokenizerBase",
    max_tokens: int,
    sample: TextSample,
    classes: Sequence[str] = (),
) -> Int8Cost:
    """Compare two ONNX files of a text student on texts.

    Args:
        fp32, int8: the files.
        tokenizer: the student's.
        max_tokens: texts are truncated to this many tokens.
        sample: the texts, at least one.
        classes: names of the classes that the student predicts; none for a number.
    Raises:
        UserError: there is no text.
    """
    sample = sample.bounded()
    if not sample.texts:
        raise UserError(f"There are no texts to measure int8 on ({sample.source}). Give some with --texts FILE.")
    exact = onnx_predictions(fp32, tokenizer, max_tokens, sample.texts, classes)
    rounded = onnx_predictions(int8, tokenizer, max_tokens, sample.texts, classes)
    difference = np.abs(rounded - exact)
    of_exact, of_rounded = (None if sample.label is None else _error(p, sample.label) for p in (exact, rounded))
    return Int8Cost(
        len(sample.texts),
        sample.source,
        float(difference.mean()),
        float(difference.max()),
        float(exact.std()),
        of_exact,
        of_rounded,
        changed=float((exact.argmax(axis=1) != rounded.argmax(axis=1)).mean()) if classes else None,
    )


def onnx_predictions(
    path: Path, tokenizer: "PreTrainedTokenizerBase", max_tokens: int, texts: Sequence[str], classes: Sequence[str] = ()
) -> FloatArray:
    """Predict texts with an ONNX file of a text student on the CPU: [R] in label units, or probabilities [R, C]."""
    return OnnxStudent(open_session(path), tokenizer, max_tokens, classes=classes).predict(texts)
