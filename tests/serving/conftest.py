"""Shared fixtures: a tiny student's export, and a server of it."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "inference"))

from servers import Served, serving
from tiny_students import make_card, make_student, make_tokenizer  # importable because of the line above

from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.inference.export import export_student
from vadv_dist.inference.predict import Student


@pytest.fixture(scope="module")
def tiny_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny exported student that also reads up to two previous texts."""
    folder = tmp_path_factory.mktemp("served")
    card = make_card(labels=LabelScale(), context=2, separator=" [SEP] ")
    export_student(make_student(folder / "encoder"), make_tokenizer(), folder / "export", card=card)
    return folder / "export"


@pytest.fixture(scope="module")
def served(tiny_export: Path) -> Iterator[Served]:
    """A server of the tiny student, for all tests of a file."""
    with serving(tiny_export, "--max-chars", 500, "--max-body-bytes", 20_000, "--max-texts", 32) as started:
        yield started


@pytest.fixture(scope="module")
def expected(tiny_export: Path) -> Callable[[str], float]:
    """The prediction of a text alone, in this process."""
    student = Student.load(tiny_export, device="cpu")
    return lambda text: float(student.predict([text])[0])
