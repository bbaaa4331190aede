"""Sections with kinds: fields of another kind are rejected, or dropped if an override changes the kind."""

import dataclasses
from pathlib import Path

import pytest

from vadv_dist.config import AloneObjectiveConfig, Config, config_from_dict, config_to_dict, load_config
from vadv_dist.config.shape import Node, fields_of, kinds_of, tree
from vadv_dist.config.weighting_sections import FamoWeightingConfig
from vadv_dist.errors import UserError


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ("objective: {weighting: famo}", []),
        ("objective: {weighting: {kind: famo}}", []),
        ("", ["--objective.weighting=famo"]),
        ("", ["--objective.weighting.kind", "famo"]),
        ("objective: {weighting: {kind: dwa, temperature: 3}}", ["--objective.weighting=famo"]),
        ("objective: {weighting: {kind: dwa, temperature: 3}}", ["--objective.weighting.kind=famo"]),
    ],
)
def test_kind_name_alone_selects_it_with_its_defaults(tmp_path: Path, text: str, overrides: list[str]) -> None:
    assert load_config(write(tmp_path, text), overrides).objective.weighting == FamoWeightingConfig()


def test_kind_and_its_fields_can_be_overridden_together(tmp_path: Path) -> None:
    config = load_config(None, ["--objective.weighting=famo", "--objective.weighting.lr=1e-3"])
    assert config.objective.weighting == FamoWeightingConfig(lr=1e-3)


def test_overriding_the_kind_drops_fields_it_lacks(tmp_path: Path) -> None:
    path = write(tmp_path, "objective: {alpha: 2, beta: 3, weighting: dwa}")
    assert load_config(path, ["--objective.kind=none"]).objective == AloneObjectiveConfig(beta=3.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "objective: {kind: none, psi: 1}",
            "'dist' or 'amid', but it is 'none'. Remove the field, or change the kind.",
        ),
        ("objective: {kind: kd, delta: 1}", "objective.delta requires objective.kind to be 'step', but it is 'kd'"),
        ("objective: {weighting: {lr: 1}}", "requires objective.weighting.kind to be 'uncertainty' or 'famo'"),
        ("objective: {kind: nne}", "objective.kind is 'nne', expected 'step', 'none', 'kd', 'dkd', 'fitnet', 'pkt'"),
        ("objective: {kind: nne}", "'cckd', 'vid', 'dist' or 'amid'. Did you mean 'none'?"),
        ("objective: {weighting: fmo}", "objective.weighting.kind is 'fmo', expected 'fixed'"),
        ("objective: {weighting: 3}", "objective.weighting is 3, expected a section with a `kind`"),
        ("task: {kind: retrieve}", "task.kind is 'retrieve', expected 'sentiment' or 'retrieval'"),
        ("task: {kind: retrieval}", "student.kind is 'text', expected a student of audio and visual vectors, such as"),
        ("student: {kind: eics}", "student.kind is 'eics', expected text, because task.kind is sentiment"),
        ("student: {kind: eics, encoder: x}", "student.encoder requires student.kind to be 'text', but it is 'eics'"),
        (
            "objective: {famo_lr: 0.1}",
            "unknown field objective.famo_lr (fields of objective of kind step: kind, alpha, beta, gamma, delta, psi, "
            "step1, step2, ",
        ),
        (
            "objective: {kind: kd, negative: 16}",
            "guard, weighting, temperature). objective.negatives exists if objective.kind is 'crd'.",
        ),
        (
            "task: retrieval\nstudent: {kind: eics, marginn: 1}",
            "(fields of student of kind eics: kind, hidden, layers, explicit, gap, implicit, dropout). student.margin "
            "exists if student.kind is 'tnn-c-cca', 'cctl' or 'instance-loss'.",
        ),
        ("student: {hiden: 1}", "gradient_checkpointing, calibrate). Did you mean 'hidden'?"),
        ("objective: {weighting: {kind: famo, lr: -1}}", "objective.weighting.lr is -1, expected a number above 0"),
    ],
)
def test_fields_of_another_kind_and_unknown_kinds_are_rejected(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(write(tmp_path, text))
    assert message in str(caught.value)


def test_error_in_an_override_names_the_argument(tmp_path: Path) -> None:
    for argument in ("--objective.weighting=fmo", "--objective.kind=nne", "--task.kind=x"):
        with pytest.raises(UserError, match=f"^{argument}: "):
            load_config(write(tmp_path, "run: {name: a}"), [argument])


def test_the_first_kind_is_the_default() -> None:
    def check(section: object, node: Node) -> None:
        for name, field in fields_of(node).items():
            if kinds := kinds_of(field):
                inner = getattr(section, name)
                assert "" in kinds or inner.kind == next(iter(kinds))
                check(inner, field)

    check(Config(), tree(Config))
    assert config_from_dict({"task": {}, "objective": {"weighting": {}}}) == Config()
    assert config_from_dict({"task": None, "objective": {"weighting": None}}) == Config()


def test_configuration_round_trips_through_a_dictionary() -> None:
    config = load_config("mosi", ["--objective.weighting=uncertainty", "--objective.weighting.lr=0.5"])
    assert config_from_dict(config_to_dict(config)) == config
    alone = dataclasses.replace(config, objective=AloneObjectiveConfig())
    assert config_from_dict(config_to_dict(alone)) == alone
