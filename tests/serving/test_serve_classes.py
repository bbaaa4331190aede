"""A server of a student that predicts classes."""

from pathlib import Path

import pytest
from servers import serving_here
from tiny_students import TEXTS, make_card, make_student, make_tokenizer

from vadv_dist.inference.export import export_student
from vadv_dist.inference.predict import Student
from vadv_dist.serving.load import load_model
from vadv_dist.serving.settings import ServeSettings
from vadv_dist.storage import location

CLASSES = ("angry", "calm", "glad")


def test_answers_name_the_class_and_all_probabilities(tmp_path: Path) -> None:
    student = make_student(tmp_path / "encoder", num_classes=3)
    export_student(student, make_tokenizer(), tmp_path / "export", card=make_card(classes=CLASSES))
    settings = ServeSettings(location(tmp_path / "export"), device="cpu")
    expected = Student.load(tmp_path / "export", device="cpu").predict(TEXTS)
    with serving_here(load_model(settings), settings) as served:
        status, answer, _ = served.ask("/predict", {"texts": TEXTS})
        assert status == 200
        assert answer["predictions"] == [CLASSES[one] for one in expected.argmax(axis=1)]
        for found, row in zip(answer["probabilities"], expected, strict=True):
            assert found == pytest.approx(dict(zip(CLASSES, row, strict=True)), abs=1e-5)
        assert answer["model"]["classes"] == list(CLASSES)
        assert served.ask("/model")[1]["classes"] == list(CLASSES)
