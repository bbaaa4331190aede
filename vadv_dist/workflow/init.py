"""`vadv init`: write a workflow file for a person's own table, raw clips or data set, from a few answers."""

import csv
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from vadv_dist.data.readers.arrays import parse_array_sources
from vadv_dist.data.readers.labels import label_spec, parse_pairs, range_of
from vadv_dist.data.readers.splits import parse_shares, split_rule
from vadv_dist.errors import UserError
from vadv_dist.formats.csv_lines import number_of
from vadv_dist.workflow.init_file import proposed, student_lines, workflow_text
from vadv_dist.workflow.own_columns import USUAL, columns_text
from vadv_dist.workflow.own_data import Found, check_rows, example_of, is_clear, look, with_columns
from vadv_dist.workflow.own_labels import Labels, Splits, guess_labels, guess_split_map

Ask = Callable[[str, str, str], str]  # field, question, proposal (may be empty): the answer
Say = Callable[[str], None]
Answer = TypeVar("Answer")
# Asks for a field with a question and a proposal until the answer can be used, and returns what was made of it.
Answers = Callable[[str, str, str, Callable[[str], Any]], Any]
_VALID_FRACTION = 0.1
_SHARES = "80/10/10"


def write_workflow(file: Path, given: Mapping[str, Any], ask: Ask, say: Say) -> Path:
    """Ask what is not given, and write a workflow file.

    Args:
        file: the file.
        given: `data`, `columns`, `label_range`, `label_map`, `classes`, `split_map`, `split`, `valid_fraction`,
            `transcribe`, `student`, `results` and `seeds` as text, `arrays` as a sequence of
            `FILE.npz:ARRAY=FEATURE`, and `force` to replace a file. What is needed and missing or None is asked.
        ask: asks for the others; again if the answer is wrong.
        say: prints what was found.
    Raises:
        UserError: the file exists, the data cannot be used, or what is given is wrong.
    """
    if file.exists() and not given.get("force"):
        raise UserError(f"{file} exists. Give another name, or replace it with --force.")

    def answer(field: str, question: str, proposal: str, use: Callable[[str], Answer]) -> Answer:
        """Ask again until the answer can be used; what an option or the proposal says is not asked again."""
        if given.get(field) is not None:
            return use(str(given[field]))
        while True:
            text = ask(field, question, proposal)
            try:
                return use(text)
            except UserError as error:
                if text == proposal:
                    raise
                say(str(error))

    arrays = tuple(given.get("arrays") or ())
    found = answer("data", "Your data: a table, a folder of clips, or a data set", "", look)
    _require_options(found, given)
    if found.kind == "table":
        found = replace(found, features=tuple(source.feature for source in parse_array_sources(arrays)))
    note = ""
    if found.kind != "ready":
        found = replace(found, transcribe=given.get("transcribe"))
        if found.kind != "mmsa":
            say(f"{found.place} has the columns {', '.join(found.header)}")
            question = f"Columns by field, such as {example_of(found)} (fields: {', '.join(USUAL)})"
            proposal = columns_text(found.columns) if is_clear(found) else ""
            found = answer("columns", question, proposal, partial(with_columns, found))
        found = replace(found, labels=_labels(found, given, answer, say))
        found = replace(found, splits=_splits(found, given, answer, say))
        note = check_rows(found)
        if note:
            say(note)
    for line in student_lines():
        say(line)
    student = answer("student", "The student's encoder: one of these, a folder, or a name on the hub", proposed(), str)
    results = answer("results", "Where results go: a folder or s3://BUCKET/PREFIX", "runs", str)
    seeds = answer("seeds", "Seeds to train with (more seeds, narrower intervals)", "1,2,3", parse_seeds)
    text = workflow_text(file.stem, found, student, results, seeds, arrays, note)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def _require_options(found: Found, given: Mapping[str, Any]) -> None:
    """Refuse options that the data have no use for."""
    of_rows = ("columns", "label_range", "label_map", "classes", "split_map", "split", "valid_fraction", "transcribe")
    for field, kinds, what in (
        *((field, ("table", "list", "mmsa"), "of a table or of clips") for field in of_rows),
        ("columns", ("table", "list"), "of a table"),
        ("transcribe", ("list", "mmsa"), "of clips"),
        ("arrays", ("table",), "features of a table"),
    ):
        if given.get(field) and found.kind not in kinds:
            raise UserError(f"--{field.replace('_', '-')} is for the rows {what}, but {found.place} has none.")


def _labels(found: Found, given: Mapping[str, Any], answer: Answers, say: Say) -> Labels:
    """Kind and range of the labels, as given or as the cells suggest."""
    option = {name: given.get(name) for name in ("label_range", "label_map", "classes")}
    if option["classes"] and option["label_range"]:
        raise UserError("--label-range is for labels that are numbers, but --classes names classes. Leave out one.")
    label_map = parse_pairs(option["label_map"], "--label-map") if option["label_map"] else {}
    if option["classes"]:
        return Labels(None, label_map, parse_classes(option["classes"]))
    where = f"{found.place}, column {found.columns['label']}"
    cells = [label_map.get(cell.strip(), cell) for cell in found.cells("label")]
    guess = guess_labels(cells, where)
    if guess.classes and not option["label_range"]:
        if label_map:
            numbers = ", such as positive=1,negative=-1, or name the classes with --classes"
            raise UserError(
                f"{where} has words that --label-map does not map to numbers: {', '.join(guess.classes)}{numbers}."
            )
        say(f"the labels are {len(guess.classes)} different words, taken as classes: {', '.join(guess.classes)}")
        classes = answer("classes", "Names of the classes, in order", _joined(guess.classes), parse_classes)
        return Labels(classes=classes)
    if guess.label_map and not label_map:
        say("the labels are words in an order, taken as numbers; --classes makes them classes")
        question = "Numbers that the words stand for"
        label_map = answer(
            "label_map", question, _shown(guess.label_map), lambda text: parse_pairs(text, "--label-map")
        )
        guess = guess_labels([label_map.get(cell, cell) for cell in guess.label_map], where)
    low, high = guess.label_range or range_of(map(float, label_map.values()))
    say(f"the labels suggest a range from {low:g} to {high:g}")
    span = answer("label_range", "Lowest and highest possible label", f"{low:g} {high:g}", parse_range)
    return Labels(span, label_map)


def _splits(found: Found, given: Mapping[str, Any], answer: Answers, say: Say) -> Splits:
    """Where splits come from, as given or as the cells suggest."""
    words = {cell.strip().casefold() for cell in found.cells("split") if cell.strip()}
    split_map = parse_pairs(given["split_map"], "--split-map") if given.get("split_map") else {}
    if words and not given.get("split"):
        guess = {word: split for word, split in guess_split_map(words).items() if word not in split_map}
        if guess and not split_map:
            question = "What the words of the split column mean"
            split_map = answer("split_map", question, _shown(guess), lambda text: parse_pairs(text, "--split-map"))
        names = split_rule(split_map, None, None, 1).names
        splits = {names.get(word) for word in words}
        if "valid" in splits or "test" in splits:
            fraction = float(given.get("valid_fraction") or (0 if "valid" in splits else _VALID_FRACTION))
            return Splits(split_map, None, fraction or None, has_test="test" in splits)
        say("the column of splits names neither clips for validation nor for test")
    question = "There are no splits. Shares of train, valid and test, dealt out by whole videos"
    shares = answer("split", question, _SHARES, _parse_split)
    return Splits(split_map, shares, has_test=len(parse_shares(shares)) > 2 and parse_shares(shares)[2] > 0)


def _parse_split(text: str) -> str:
    parse_shares(text)
    return text


def parse_classes(text: str) -> tuple[str, ...]:
    """Names of classes between commas; one that contains a comma is in quotes.

    Raises:
        UserError: they are not two or more different names.
    """
    return label_spec((0, 1), classes=next(csv.reader([text], skipinitialspace=True), [])).classes


def _joined(names: tuple[str, ...]) -> str:
    return ",".join(f'"{name}"' if "," in name else name for name in names)


def _shown(pairs: Mapping[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in pairs.items())


def parse_range(text: str) -> tuple[float, float]:
    """Two numbers, the lower one first.

    Raises:
        UserError: it is something else.
    """
    numbers = [number_of(part) for part in re.split(r"[\s,;\[\]]+", text.strip("[] ")) if part]
    if len(numbers) != 2 or not all(map(math.isfinite, numbers)) or not numbers[0] < numbers[1]:
        raise UserError(f"The label range is {text!r}, expected two numbers, the lower one first, such as -3 3.")
    return numbers[0], numbers[1]


def parse_seeds(text: str) -> list[int]:
    """Different seeds from 0.

    Raises:
        UserError: it is something else.
    """
    parts = [part for part in re.split(r"[\s,\[\]]+", text) if part]
    if not parts or not all(part.isascii() and part.isdigit() for part in parts) or len(set(parts)) < len(parts):
        raise UserError(f"The seeds are {text!r}, expected different integers from 0, such as 1,2,3.")
    return [int(part) for part in parts]
