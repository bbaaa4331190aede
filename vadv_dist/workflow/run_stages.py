"""The stages of runs: search their fields, train them, score their students, and run a study beside them."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from vadv_dist.config import Config, config_to_dict, config_to_yaml
from vadv_dist.config.load import build, read_yaml, set_field
from vadv_dist.config.recipes import config_path
from vadv_dist.config.study import fill_in
from vadv_dist.config.study_runs import StudyRuns, find_study, load_study, small_study
from vadv_dist.config.workflow import EvaluateStageConfig, StudyStageConfig, TrainStageConfig, TuneStageConfig
from vadv_dist.errors import MachineError, UserError
from vadv_dist.inference.manifest import MANIFEST, resolve_student
from vadv_dist.runs.checkpoint import checkpoint_at
from vadv_dist.runs.folder import MACHINE_FIELDS, RunFolder
from vadv_dist.storage import scratch_folder, write_text
from vadv_dist.workflow.data_stages import data_folder, sources_of
from vadv_dist.workflow.outside import OutsideFile, content_of, encoder_content
from vadv_dist.workflow.stage import CARD, Finished, Outcome, Stage, Work

DATA, MADE = "data:", "made:"  # data sets of the workflow, and those that a study makes
# Variants of trainings, as reports name them.
ALONE = "student alone"
TAUGHT = "with teacher"


def tune_stage(config: TuneStageConfig, train: TrainStageConfig, data: Sequence[Stage], where: str) -> Stage:
    """The search for the run's fields, on the validation split."""
    from vadv_dist.tuning.space_file import find_space

    space = find_space(config.space)
    base = run_config(train, placeholders(data), where)

    def run(work: Work) -> Outcome:
        from vadv_dist.tuning.search import tune
        from vadv_dist.workflow.cards import tune_card

        resolved = run_config(train, _folders(data, work), where)
        named = dataclasses.replace(resolved.run, name="search", storage=str(work.folder))
        resolved = _quiet(dataclasses.replace(resolved, run=named))
        with scratch_folder() as scratch:
            write_text(scratch / "config.yaml", config_to_yaml(resolved))
            found = tune(
                scratch / "config.yaml",
                space,
                [f"--{name}={_text(value)}" for name, value in config.overrides.items()],
                work.console,
                use_ray=config.use_ray,
            )
        place = work.folder / str(found["folder"]).rstrip("/").rpartition("/")[2]
        tune_card(place).write_html(work.folder / CARD)
        values = {"values": found["winner"]["values"], "verdict": found["verdict"], "search": place.name}
        write_text(work.folder / "best.json", json.dumps(values["values"], sort_keys=True) + "\n")
        return Outcome(values, ("best.json",))

    settings = {"run": _identity(base), "overrides": dict(config.overrides)}
    outside = {"space": content_of(str(space)), **_encoder(base)}
    return Stage("tune", "tune", settings, run, inputs=tuple(data), outside=outside, heavy=True)


def train_stage(
    config: TrainStageConfig,
    name: str,
    seed: int,
    data: Sequence[Stage],
    tuned: Stage | None,
    after: Sequence[Stage],
    where: str,
    *,
    alone: bool,
) -> Stage:
    """One training.

    Args:
        config: the section.
        name: the workflow's name, of which the run's is made.
        seed: its seed.
        data: the stages of its data sets.
        tuned: the search whose best values it takes; None takes the run's own.
        after: stages that must be complete first.
        where: the workflow file, for messages.
        alone: whether the student is trained without its teacher.
    """
    run_name = f"{name}-{'alone-' if alone else ''}seed-{seed}"
    base = run_config(config, placeholders(data), where, seed=seed, alone=alone)

    def run(work: Work) -> Outcome:
        from vadv_dist.launch.driver import train
        from vadv_dist.workflow.cards import training_card

        best: Mapping[str, Any] = {} if tuned is None else work.inputs[tuned.name].values["values"]
        resolved = run_config(config, _folders(data, work), where, seed=seed, alone=alone, best=best)
        named = dataclasses.replace(resolved.run, name=run_name, storage=str(work.folder))
        resolved = _quiet(dataclasses.replace(resolved, run=named))
        train(resolved, work.console)
        folder = RunFolder.of(resolved)
        result = folder.result()
        if result is None:
            raise MachineError(f"{folder.root} ended without a result. Run the workflow again.")
        training_card(folder.root).write_html(work.folder / CARD)
        checkpoint = checkpoint_at(folder.checkpoints, result.best_step).path.name
        variant = TAUGHT if resolved.has_teacher else ALONE
        values = {"run": run_name, "seed": seed, "variant": variant, "score": result.score, "cost": result.cost}
        products = ("student/vadv_export.json", f"checkpoints/{checkpoint}/manifest.json")
        return Outcome(values, [f"{run_name}/{product}" for product in products])

    return Stage(
        f"train-{'alone-' if alone else ''}seed-{seed}",
        "train",
        _identity(base),
        run,
        inputs=(*data, *([] if tuned is None else [tuned])),
        after=tuple(after),
        outside=_encoder(base),
        heavy=True,
    )


def evaluate_stage(config: EvaluateStageConfig, train: Stage, data: Sequence[Stage]) -> Stage:
    """Score the best checkpoint of a training; the only stage that reads the test split."""

    def run(work: Work) -> Outcome:
        from vadv_dist.training.evaluate import evaluate_run
        from vadv_dist.workflow.cards import evaluation_card

        trained = work.inputs[train.name]
        places = [str(data_folder(work.inputs[stage.name])) for stage in data]
        evaluation = evaluate_run(trained.place("run"), config.split, data=places, out=work.folder)
        evaluation_card(trained.place("run"), work.folder).write_html(work.folder / CARD)
        student = evaluation.metrics[evaluation.task.student.name]
        files = (f"evaluation-{config.split}.json", f"predictions-{config.split}.parquet")
        return Outcome({"split": config.split, "student": student, "rows": evaluation.rows}, files)

    name = f"evaluate-{train.name.removeprefix('train-')}"
    return Stage(name, "evaluate", config_to_dict(config), run, inputs=(train, *data), heavy=True)


def study_stage(config: StudyStageConfig, data: Sequence[Stage], after: Sequence[Stage], where: str) -> Stage:
    """A study on the workflow's data sets, or its small part, which makes its own.

    Args:
        config: the section.
        data: the stages of the data sets.
        after: stages that must be complete before the data sets are used.
        where: the workflow file, for messages.
    """
    file = find_study(config.file)
    inputs, after = ((), ()) if config.small else (tuple(data), tuple(after))

    def arguments(folders: Mapping[str, str]) -> list[str]:
        overrides = {
            name: _filled(value, folders, f"{where}: study.overrides.{name}")
            for name, value in config.overrides.items()
        }
        if not config.small:
            overrides.setdefault("data.sources", sources_of(folders))
        return [f"--{name}={_text(value)}" for name, value in overrides.items()]

    def run(work: Work) -> Outcome:
        from vadv_dist.studies.plan import plan_study
        from vadv_dist.studies.study import run_study
        from vadv_dist.workflow.cards import study_card

        given = [*arguments(_folders(inputs, work)), f"--run.storage={work.folder}"]
        run_study(plan_study(file, given, small=config.small, name="study"), work.console, use_ray=config.use_ray)
        study_card(work.folder / "study").write_html(work.folder / CARD)
        return Outcome({"study": "study"}, ("study/study.json",))

    study = load_study(file)
    if config.small:
        study = small_study(study, str(file))
    made = {name: f"{MADE}{name}" for name in study.small.made}
    runs = StudyRuns(study, str(file), arguments(placeholders(inputs))).configs(made)
    settings = {"small": config.small, "runs": {name: _identity(each) for name, each in runs.items()}}
    outside = {"study": content_of(str(file))}
    for each in runs.values():
        outside |= _encoder(each)
    for variant in study.variants.values():
        for seed in study.seeds if variant.predictions else ():
            place = str(variant.predictions).replace("{seed}", str(seed))
            outside[place] = content_of(place)
    return Stage("study", "study", settings, run, inputs=inputs, after=after, outside=outside, heavy=True)


def run_config(
    config: TrainStageConfig,
    folders: Mapping[str, str],
    where: str,
    *,
    seed: int = 1,
    alone: bool = False,
    best: Mapping[str, Any] | None = None,
) -> Config:
    """The configuration of a training, without its name and storage.

    Args:
        config: the section.
        folders: folders of the data sets by name.
        where: the workflow file, for messages.
        seed: its seed.
        alone: whether the student is trained without its teacher.
        best: values of a search.
    """
    raw = read_yaml(config_path(config.config))
    for name, value in {**config.overrides, **(best or {})}.items():
        set_field(raw, Config, name, _filled(value, folders, f"{where}: train.overrides.{name}"))
    set_field(raw, Config, "data.sources", sources_of(folders))
    set_field(raw, Config, "run.seed", seed)
    if alone:
        beta = raw.get("objective", {}).get("beta") if isinstance(raw.get("objective"), dict) else None
        raw["objective"] = {"kind": "none", **({} if beta is None else {"beta": beta})}
    return build(Config, raw, (), f"{where}, train")


def placeholders(data: Sequence[Stage]) -> dict[str, str]:
    """Folders of data sets that do not exist yet: `data:NAME`."""
    return {_name(stage): f"{DATA}{_name(stage)}" for stage in data}


def runs_of(work: Work) -> dict[str, tuple[Finished, Finished]]:
    """Trainings and their evaluations, by the name of the training's stage."""
    trained, scored = work.of_kind("train"), work.of_kind("evaluate")
    return {name: (each, scored[f"evaluate-{name.removeprefix('train-')}"]) for name, each in trained.items()}


def _folders(data: Sequence[Stage], work: Work) -> dict[str, str]:
    return {_name(stage): str(data_folder(work.inputs[stage.name])) for stage in data}


def _filled(value: Any, folders: Mapping[str, str], where: str) -> Any:
    """An override with the folders of data sets."""
    try:
        return fill_in(value, DATA, folders)
    except KeyError as error:
        known = f"one of the data sets {', '.join(folders)}" if folders else "a data set of the study's `small` part"
        raise UserError(f"{where} refers to data:{error.args[0]}, expected {known}.") from None


def _name(data: Stage) -> str:
    return data.name.removeprefix("data-")


def _identity(config: Config) -> dict[str, Any]:
    """A configuration without where and on what it is computed."""
    raw = config_to_dict(config)
    found = {
        section: {key: value for key, value in fields.items() if key not in MACHINE_FIELDS.get(section, ())}
        for section, fields in raw.items()
        if isinstance(fields, dict)
    }
    found["run"].pop("name")
    found["trainer"].pop("ray_address", None)
    return found


def _encoder(config: Config) -> dict[str, OutsideFile]:
    """The encoder, unless a stage makes it, and the student that training starts from."""
    student = config.text_student
    if student is None:
        return {}
    found = {}
    if student.init is not None:
        manifest = resolve_student(student.init) / MANIFEST  # has the hash of every file
        found["student.init"] = content_of(str(manifest), "student.init")
    if not student.encoder.startswith((DATA, MADE)):
        found |= encoder_content(student.encoder, weights=student.pretrained)
    return found


def _quiet(config: Config) -> Config:
    """Without a port, which trainings that run at the same time cannot share."""
    return dataclasses.replace(config, telemetry=dataclasses.replace(config.telemetry, port=None))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
