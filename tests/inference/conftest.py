import json

import pytest
from pairs import export_small
from tiny_students import make_card, make_student, make_tokenizer

from vadv_dist.inference.export import export_student


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="session")
def student(tmp_path_factory):
    return make_student(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def export(student, tokenizer, tmp_path):
    """Folder of a tiny exported student."""
    export_student(student, tokenizer, tmp_path / "export", card=make_card())
    return tmp_path / "export"


@pytest.fixture
def run_folder(student, tokenizer, tmp_path):
    """Folder of a finished run with evaluations of its best step and of an earlier one."""
    run = tmp_path / "runs" / "tiny"
    export_student(student, tokenizer, run / "student", card=make_card())
    (run / "config.yaml").write_text("run: {name: tiny}\n")
    (run / "result.json").write_text(json.dumps({"best_step": 7}))
    for split, step, mae in (("test", 7, 0.75), ("train", 3, 0.5)):
        evaluation = {"split": split, "step": step, "student": {"mae": mae}}
        (run / f"evaluation-{split}.json").write_text(json.dumps(evaluation))
    return run


@pytest.fixture(scope="session")
def pair_export(tmp_path_factory):
    """Folder of a tiny exported retrieval student; tests leave it as it is."""
    return export_small(tmp_path_factory.mktemp("exports") / "pair")
