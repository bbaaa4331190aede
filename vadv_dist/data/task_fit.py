"""Whether a data set has the labels, words and features that a run's task needs."""

from vadv_dist.config import Config
from vadv_dist.config.rival_sections import COMPARE_FEATURES, DkdConfig, KdConfig
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.schema import SPLITS
from vadv_dist.errors import UserError


def require_data_of_task(dataset: Dataset, config: Config) -> None:
    """Check a data set of a run.

    Raises:
        UserError: its labels are of another kind than the task or the objective needs, or it lacks words or features.
    """
    task, manifest = config.task, dataset.manifest
    if manifest.label.kind not in task.label_kinds:
        raise UserError(
            f"{dataset.root} has labels that are numbers, but {task.kind} needs classes. Give a data set of classes "
            f"(`vadv ingest vegas`, `vadv synth --task retrieval`), or set task.kind: sentiment."
        )
    if config.text_student is not None and manifest.label.is_class:
        _require_words(dataset, task.kind)
        if config.text_student.calibrate == "on":
            raise UserError(
                f"student.calibrate is 'on', but {dataset.root} has class labels, and calibration is a line to labels "
                "that are numbers. Set student.calibrate: auto."
            )
    if config.text_student is not None and not manifest.label.is_class:
        _require_class_scores(dataset, config)
    wanted, has = task.student_features, manifest.features
    if absent := [name for name in wanted if name not in has]:
        raise UserError(
            f"{dataset.root} has no {' and no '.join(absent)} features (it has: {', '.join(has) or 'none'}), but "
            f"{task.kind} needs {' and '.join(wanted)} of each clip. Give a data set that has them."
        )


def _require_words(dataset: Dataset, task: str) -> None:
    """Class labels do not imply words: clips of audio-visual retrieval have none."""
    for split in SPLITS:
        statistics = dataset.manifest.statistics.get(split)
        words = None if statistics is None else statistics.words
        if words is not None and words.min == 0:
            which = "no words" if words.max == 0 else "clips without words"
            raise UserError(
                f"{dataset.root} has {which} in its {split} split, but the student of {task} reads words. Give a data "
                "set with the words of every clip, or set task.kind: retrieval."
            )


def _require_class_scores(dataset: Dataset, config: Config) -> None:
    """A loss on class probabilities needs those of prompts if labels are numbers, and a part of the student to train.

    Raises:
        UserError: the objective can teach nothing.
    """
    kind = config.objective.kind
    if not isinstance(config.objective, KdConfig | DkdConfig) or config.text_student is None:
        return
    others = ", ".join(COMPARE_FEATURES)
    if config.teacher.prompting == "none":
        raise UserError(
            f"teacher.prompting is 'none', expected video or static, because objective.kind {kind} compares class "
            f"probabilities, and that of a single regression logit is constant: {dataset.root} has labels that are "
            f"numbers. Without prompts, these objectives can teach: step, dist, {others}"
        )
    if config.text_student.freeze_encoder:
        raise UserError(
            f"student.freeze_encoder is True, expected false, because objective.kind {kind} would train nothing but a "
            f"head of its own: {dataset.root} has labels that are numbers. With a frozen encoder, these objectives can "
            f"teach: step, dist, and with student_features: hidden {others}"
        )
