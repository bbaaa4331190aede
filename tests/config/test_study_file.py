"""Study files: what they may say, and the configurations of the runs that they describe."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from vadv_dist.config.reference import json_schema
from vadv_dist.config.study import StudyConfig
from vadv_dist.config.study_runs import StudyRuns, find_study, load_study, small_study
from vadv_dist.errors import UserError

STUDY = """
title: Does a teacher help?
config: mosi
overrides: {trainer.epochs: 3, objective.beta: 2.0}
reference: alone
published: {source: a table}
variants:
  alone: {overrides: {objective.kind: none}, published: {mae: 0.66}}
  taught: {}
  rival: {overrides: {objective: kd}}
  outside: {predictions: "lmf-{seed}.csv"}
small:
  made: {toy: {num_clips: 150}, events: {kind: retrieval, classes: 3}}
  config: demo
  overrides: {"data.sources": [{uri: "made:toy"}], student.encoder: "made:toy/encoder", trainer.num_workers: 0}
  variants: {rival: {overrides: {objective.gamma: 0.5}}}
  seeds: [7]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def test_variants_override_the_study_and_its_command_line(tmp_path: Path) -> None:
    path = written(tmp_path, STUDY)
    study = load_study(path)
    runs = StudyRuns(study, str(path), ["--trainer.epochs=5", "--objective.kind=step", "--run.storage", "elsewhere"])
    configs = runs.configs({})
    assert runs.storage == "elsewhere"
    assert list(configs) == ["alone", "taught", "rival"]
    assert [config.trainer.epochs for config in configs.values()] == [5, 5, 5]
    assert [config.objective.kind for config in configs.values()] == ["none", "step", "kd"]
    # A kind as a field keeps what the new kind has, too; as a section it starts from that kind's defaults.
    assert configs["alone"].objective.beta == configs["taught"].objective.beta == 2.0
    assert configs["rival"].objective.beta != 2.0
    assert configs["taught"].student.encoder == "roberta-large"
    assert study.seeds == (1, 2, 3, 4, 5)
    assert study.splits == ("test",)


def test_small_scale_replaces_data_and_models_and_leaves_out_foreign_predictions(tmp_path: Path) -> None:
    path = written(tmp_path, STUDY)
    study = small_study(load_study(path), str(path))
    configs = StudyRuns(study, str(path)).configs({"toy": "/made/toy", "events": "/made/events"})
    assert list(configs) == ["alone", "taught", "rival"]
    assert {config.data.sources[0].uri for config in configs.values()} == {"/made/toy"}
    assert {config.student.encoder for config in configs.values()} == {"/made/toy/encoder"}
    assert configs["rival"].objective.gamma == 0.5
    assert configs["taught"].trainer.epochs == 3
    assert study.seeds == (7,)
    assert study.reference_name == "alone"
    assert not study.variants["alone"].published
    assert load_study(path).small.made["toy"].num_clips == 150


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("rival: {overrides: {objective: kd}}", "rival: {overrides: {objective.alfa: 1}}"), "variant 'rival': .*alfa"),
        (("objective.beta: 2.0", "objectiv.beta: 2.0"), "study.yaml, overrides: unknown section 'objectiv'"),
        (("  taught: {}", "  taught: {overides: {}}"), r"unknown field variants\.taught\.overides .*overrides"),
        (("  taught: {}", "  taught: {}\n  taught: {}"), "taught"),
        (("  taught: {}", "  Alone!: {}"), "names that differ in their letters and digits"),
        (("reference: alone", "reference: lone"), "reference is 'lone', expected one of alone, taught"),
        (("reference: alone", "seeds: []"), "seeds is"),
        (("reference: alone", "seeds: [1, 1]"), "unique entries"),
        (("reference: alone", "splits: [dev]"), "splits.*'dev'"),
        (("published: {source: a table}\n", ""), "published is None"),
        (("taught: {}", "taught: {config: mosi, predictions: p.csv}"), "predictions is 'p.csv'"),
        (("taught: {}", "taught: {overrides: {run.seed: 3}}"), "run.seed is set by the study"),
        (("title: Does a teacher help?\n", ""), "title is missing"),
        (("rival: {overrides: {objective.gamma: 0.5}}", "rivl: {}"), "small.variants is .*rivl"),
    ],
)
def test_mistake_in_a_study_file_is_one_message_with_its_place(
    tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    text = STUDY.replace(*change)
    assert text != STUDY
    path = written(tmp_path, text)
    with pytest.raises(UserError, match=said) as raised:
        StudyRuns(load_study(path), str(path)).configs({})
    assert str(path) in str(raised.value)


def test_made_data_that_the_study_does_not_have_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, STUDY.replace("made:toy/encoder", "made:toys/encoder"))
    study = small_study(load_study(path), str(path))
    with pytest.raises(UserError, match=r"student.encoder refers to made:toys.*Did you mean.*toy"):
        StudyRuns(study, str(path)).configs({"toy": "/made/toy", "events": "/made/events"})


def test_study_without_a_small_part_or_without_a_file_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "title: t\nvariants: {a: {}}\n")
    with pytest.raises(UserError, match="no `small` part"):
        small_study(load_study(path), str(path))
    with pytest.raises(UserError, match=r"does not exist\. Give a study file"):
        find_study(tmp_path / "none.yaml")


def test_schema_accepts_what_the_loader_accepts(tmp_path: Path) -> None:
    validator = jsonschema.Draft202012Validator(json_schema(StudyConfig))
    raw = yaml.safe_load(STUDY)
    assert list(validator.iter_errors(raw)) == []
    raw["small"]["made"]["toy"]["clips"] = 3
    assert not validator.is_valid(json.loads(json.dumps(raw)))
