"""Labels as people write them: numbers, decimal commas, percent, words that stand for numbers, and classes."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from vadv_dist.data.readers.ingestion import BadRowError
from vadv_dist.data.readers.option_names import OptionName, on_command_line
from vadv_dist.data.schema import LabelSpec
from vadv_dist.errors import UserError, did_you_mean
from vadv_dist.formats.csv_lines import number_of

_COMMA = re.compile(r"\s*[+-]?\d*,\d+\s*", re.ASCII)
_MAX_SHOWN = 8


def label_spec(
    label_range: tuple[float, float],
    threshold: float | None = None,
    classes: Sequence[str] = (),
    option: OptionName = on_command_line,
) -> LabelSpec:
    """Labels that are numbers in a range, negative below a threshold, positive above (None: the middle), or classes.

    Raises:
        UserError: it is not a range, the threshold is outside it, or the classes are not two or more different names.
    """
    if classes:
        names = [name.strip() for name in classes]
        if len(names) < 2 or not all(names) or len({name.casefold() for name in names}) < len(names):
            raise UserError(
                f"{option('classes')} is {','.join(classes)}, expected two or more different names, such as no,yes."
            )
        if threshold is not None:
            one, other = option("threshold"), option("classes")
            raise UserError(f"{one} is for labels that are numbers, but {other} names classes. Leave out one.")
        return LabelSpec.of_classes(len(names), names)
    low, high = label_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"{option('label_range')} is {low:g} {high:g}, expected two numbers, the lower one first.")
    if threshold is not None and not low < threshold < high:
        raise UserError(
            f"{option('threshold')} is {threshold:g}, expected a number between the lowest and the highest label "
            f"({low:g} and {high:g}, see {option('label_range')}): labels from the threshold on are "
            "positive, those below it negative."
        )
    return LabelSpec(float(low), float(high), threshold=threshold)


def label_number(cell: str) -> float:
    """The number that a label's cell means: `2.5`, `2,5`, or `85 %` (0.85); NaN if it is none."""
    text = cell.strip()
    is_percent = text.endswith("%")
    text = text.removesuffix("%").rstrip()
    if _COMMA.fullmatch(text):
        text = text.replace(",", ".")
    value = number_of(text)
    return value / 100 if is_percent else value


def range_of(labels: Iterable[float]) -> tuple[float, float]:
    """A range of whole numbers that covers all labels, symmetric if some are negative."""
    values = list(labels)
    low, high = math.floor(min(values)), math.ceil(max(values))
    if low < 0:
        return float(-max(-low, high)), float(max(-low, high))
    return float(low), float(max(high, low + 1))


def range_of_words(label_map: Mapping[str, object] | None) -> tuple[float, float] | None:
    """The range of labels that words stand for; None if there are none, or if some stand for something else."""
    values = [label_number(str(meaning)) for meaning in (label_map or {}).values()]
    return range_of(values) if values and all(map(math.isfinite, values)) else None


class LabelReader:
    """Reads the cells of a label column.

    Args:
        spec: kind and range of the labels.
        label_map: what words stand for: numbers or, if the labels are classes, names of classes.
        option: how messages name options.
    Attributes:
        commas, percents: how many cells had a decimal comma or a percent sign.

    Raises:
        UserError: a word stands for something that is no label.
    """

    def __init__(
        self, spec: LabelSpec, label_map: Mapping[str, object] | None = None, option: OptionName = on_command_line
    ) -> None:
        self.spec, self.commas, self.percents, self._option = spec, 0, 0, option
        self._classes = {name.casefold(): number for number, name in enumerate(spec.classes)}
        self._map: dict[str, float] = {}
        for word, meaning in (label_map or {}).items():
            value = self._plain(str(meaning).strip())
            if not math.isfinite(value) or not spec.holds(value):
                raise UserError(
                    f"{option('label_map')} says {word}={meaning}, expected {self.expected}."
                    f"{did_you_mean(str(meaning), spec.classes)}"
                )
            self._map[word.strip().casefold()] = value

    @property
    def expected(self) -> str:
        """What a label may be, as a part of a sentence."""
        if not self.spec.classes:
            return str(self.spec)
        return "one of " + ", ".join(self.spec.classes) + f", or a number from 0 to {self.spec.high:g}"

    def read(self, where: str, column: str, cell: str) -> float:
        """The label in a cell.

        Raises:
            BadRowError: it is none.
        """
        mapped = self._map.get(cell.strip().casefold())
        if mapped is not None:
            return mapped
        value = self._plain(cell)
        if not math.isfinite(value):
            if self.spec.is_class:
                what = f"{where}: {column} is {cell!r}, expected {self.expected}.{self._advice(cell)}"
                raise BadRowError("unknown class", what)
            raise BadRowError(
                "label is not a number", f"{where}: {column} is {cell!r}, expected a number.{self._advice(cell)}"
            )
        if not self.spec.holds(value):
            raise BadRowError(
                "label out of range", f"{where}: {column} is {cell}, expected {self.expected}.{self._advice(cell)}"
            )
        if not self.spec.is_class:
            self.percents += cell.rstrip().endswith("%")
            self.commas += "," in cell
        return value

    def said(self) -> list[str]:
        """What was made of unusual cells, in sentences."""
        lines = []
        if self.commas:
            lines.append(f"{self.commas:,} labels have a decimal comma, read as a point")
        if self.percents:
            lines.append(f"{self.percents:,} labels are in percent, read as hundredths (85% is 0.85)")
        return lines

    def _plain(self, cell: str) -> float:
        if self.spec.is_class:
            number = self._classes.get(cell.strip().casefold())
            return number_of(cell) if number is None else float(number)
        return label_number(cell)

    def _advice(self, cell: str) -> str:
        """What to do about a cell that is no label."""
        known = [*self.spec.classes, *self._map]
        near = did_you_mean(cell.strip(), known) if known else ""
        words = self._option("label_map")
        if self.spec.is_class:
            return f"{near} Fix it, or say what it means with {words} (WORD=CLASS)."
        if math.isfinite(label_number(cell)):
            return f" Fix it, or set the right {self._option('label_range')} LOW HIGH."
        if not cell.strip():
            return " Fill it in, or remove the row."
        return (
            f"{near} If words are labels, give their numbers with {words} (such as positive=1,negative=-1), or name "
            f"classes with {self._option('classes')} (such as negative,positive)."
        )


def parse_pairs(text: str, option: str) -> dict[str, str]:
    """Parse `a=1,b=2`.

    Raises:
        UserError: it is something else, or a name appears twice.
    """
    pairs: dict[str, str] = {}
    for part in text.split(","):
        name, sign, value = (side.strip() for side in part.rpartition("="))
        if not (name and sign and value) or name in pairs:
            raise UserError(f"{option} is {text!r}, expected pairs of different words, such as a=1,b=2.")
        pairs[name] = value
    return pairs
