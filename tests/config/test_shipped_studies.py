"""The shipped studies: each loads, and each of its variants is a configuration that differs from the others."""

from pathlib import Path

import pytest

from vadv_dist.config import Config
from vadv_dist.config.study import StudyConfig
from vadv_dist.config.study_runs import StudyRuns, load_study, small_study
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.evaluation.published import TABLE_2, TABLE_7
from vadv_dist.evaluation.published_vegas import TABLE_4, TABLE_8, TABLE_11
from vadv_dist.evaluation.retrieval import METRICS as RETRIEVAL_METRICS

STUDIES = sorted((Path(__file__).parents[2] / "jobs" / "studies").glob("*.yaml"))
TABLES = {"table2", *(f"table{n}" for n in (4, 5, 6, 7, 8, 9, 10, 11, 12))}
QUESTIONS = {"low-resource", "direct", "modalities", "objectives", "students", "context", "weights"}
WORDS = {"context-words", "students-words"}


def full(path: Path) -> tuple[StudyConfig, dict[str, Config]]:
    study = load_study(path)
    return study, StudyRuns(study, str(path)).configs({})


def small(path: Path) -> tuple[StudyConfig, dict[str, Config]]:
    study = small_study(load_study(path), str(path))
    return study, StudyRuns(study, str(path)).configs({name: f"/made/{name}" for name in study.small.made})


def test_every_experiment_of_the_papers_is_a_study() -> None:
    assert {path.stem for path in STUDIES} == TABLES | QUESTIONS | WORDS | {"table2-mosei"}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_variant_resolves_and_differs_from_the_others(path: Path) -> None:
    for study, configs in (full(path), small(path)):
        assert list(configs) == list(study.variants)
        assert len({str(config) for config in configs.values()}) == len(configs)
        assert any(not config.has_teacher for config in configs.values())  # a student alone in every table
        assert len(study.seeds) == 5
        assert study.splits == ("test",)
        known = RETRIEVAL_METRICS if configs[study.reference_name].task.kind == "retrieval" else LabelScale().metrics
        keys = {metric.key for metric in known}
        assert set(study.metrics) <= keys
        assert all(set(variant.published) <= keys for variant in study.variants.values())


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_small_scale_asks_the_same_question_on_made_data_and_one_cpu(path: Path) -> None:
    (_, large_configs), (_, configs) = full(path), small(path)
    for name, config in configs.items():
        assert all(source.uri.startswith("/made/") for source in config.data.sources)
        assert config.trainer.num_workers == 0
        assert config.trainer.use_gpu is False
        assert config.engine.kind != "deepspeed"
        if config.text_student is not None:
            assert config.text_student.encoder.startswith("/made/")
        large = large_configs[name]
        # What makes a variant what it is stays at the small scale.
        assert config.objective.kind == large.objective.kind
        assert config.student.kind == large.student.kind
        assert config.data.train_share == large.data.train_share
        switches = ("use_visual", "use_face", "use_audio", "prompting")
        if config.task.kind == "sentiment":
            assert [getattr(config.teacher, s) for s in switches] == [getattr(large.teacher, s) for s in switches]
            assert config.text_student.context == large.text_student.context
            assert config.text_student.freeze_encoder == large.text_student.freeze_encoder
        for field in ("step1", "step2", "route"):
            assert getattr(config.objective, field, None) == getattr(large.objective, field, None)


def test_published_values_are_those_of_the_tables() -> None:
    """As `evaluation/published` has them for reports."""
    of_mosi = {row.model: row.scores for row in (*TABLE_7, *TABLE_2)}
    of_vegas = {row.model: row.scores for row in (*TABLE_4, *TABLE_8, *TABLE_11)}
    studies = {
        path.stem: {name: dict(v.published) for name, v in load_study(path).variants.items()} for path in STUDIES
    }
    assert studies["table2"]["VideoAdviser"] == of_mosi["VideoAdviser"]
    for name, published in studies["table7"].items():
        row = of_mosi[name.replace("teacher, frozen encoder", "teacher, encoder frozen")]
        assert published == row
    names = {"random": "Random", "VideoAdviser (EICS with teacher)": "VideoAdviser"}
    for name, published in studies["table4"].items():
        assert published == of_vegas[names.get(name, name)]
    assert studies["table8"]["onto audio"] == of_vegas["Distilled onto audio"]
    assert studies["table8"]["onto video"] == of_vegas["Distilled onto visual"]
    for name in ("KD", "FitNet", "PKT"):
        assert studies["table11"][name] == of_vegas[f"Distilled by {name}"]
