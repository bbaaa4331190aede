"""Build the objective and its weighting from the configuration's `objective` section."""

from collections.abc import Mapping, Sequence

import torch

from vadv_dist.config import Config
from vadv_dist.config.objective_sections import AloneObjectiveConfig, ObjectiveConfig
from vadv_dist.config.rival_sections import RivalConfig
from vadv_dist.config.sections import RetrievalConfig
from vadv_dist.config.weighting_sections import (
    DwaWeightingConfig,
    EqualWeightingConfig,
    FamoWeightingConfig,
    FixedWeightingConfig,
    RlwWeightingConfig,
    UncertaintyWeightingConfig,
    UwSoWeightingConfig,
)
from vadv_dist.errors import UserError
from vadv_dist.evaluation.description import Term
from vadv_dist.objectives.base import Objective
from vadv_dist.objectives.distillation import Distillation
from vadv_dist.objectives.retrieval import RetrievalObjective
from vadv_dist.objectives.rival_objective import RivalObjective
from vadv_dist.objectives.step_distillation import StepDistillation
from vadv_dist.objectives.weighting import (
    DynamicWeightAverage,
    FastAdaptiveWeighting,
    LabelUncertaintyWeighting,
    RandomWeighting,
    SoftOptimalUncertaintyWeighting,
    Weighting,
)
from vadv_dist.students.base import RetrievalStudent
from vadv_dist.tasks.rivals import Sides, build_rival


def build_objective(
    config: Config, threshold: float | None, sides: Sides | None
) -> tuple[Objective, Mapping[str, float]]:
    """Build the objective of sentiment, and the fixed weights of its terms by name.

    Args:
        config: the run's.
        threshold: lowest positive label; None if labels are classes.
        sides: what a rival must know of teacher and student; None without a teacher.
    Raises:
        UserError: the objective can teach nothing.
    """
    section = config.objective
    if isinstance(section, AloneObjectiveConfig) or sides is None:
        alone = StepDistillation(has_teacher=False, threshold=threshold)
        return alone, {term.name: section.beta for term in alone.described}
    has_prompts = config.teacher.prompting != "none"
    own: dict[str, float] = {}
    objective: Objective
    if isinstance(section, RivalConfig):
        distillation, own = build_rival(section, sides)
        objective = RivalObjective(
            distillation,
            has_prompts=has_prompts,
            threshold=threshold,
            detach_targets=section.detach_targets,
        )
    else:
        objective = StepDistillation(
            has_prompts=has_prompts,
            threshold=threshold,
            step1=section.step1,
            step2=section.step2,
            direct=section.route == "direct",
            detach_targets=section.detach_targets,
        )
    return objective, {term.name: getattr(section, term.weight) for term in objective.described} | own


def build_retrieval_objective(
    config: Config, student: RetrievalStudent, sides: Mapping[str, Sides]
) -> tuple[RetrievalObjective | None, Mapping[str, float]]:
    """Build what the teacher adds to a retrieval student's terms, and the fixed weights of all terms by name.

    Args:
        config: the run's.
        student: the student.
        sides: what a rival must know of teacher and student, for each modality; empty without a teacher.
    Raises:
        UserError: the student has nothing that the objective distils onto.
    """
    section, task = config.objective, config.task
    assert isinstance(task, RetrievalConfig)
    weights = {name: section.beta * weight for name, weight in student.weights.items()}
    if isinstance(section, AloneObjectiveConfig):
        return None, weights
    if student.in_closed_form:
        raise UserError(
            f"student.kind {config.student.kind} is determined in closed form, so no teacher can be distilled onto it. "
            "Set objective.kind: none."
        )
    has_prompts = config.teacher.prompting != "none"
    own: dict[str, float] = {}
    if isinstance(section, RivalConfig):
        rivals: dict[str, Distillation] = {}
        for modality in task.distil_onto:
            rivals[modality], of_rival = build_rival(section, sides[modality])
            own |= {f"{name}_{modality}": weight for name, weight in of_rival.items()}
        objective = RetrievalObjective(
            task.distil_onto,
            has_prompts=has_prompts,
            detach_targets=section.detach_targets,
            rivals=rivals,
            hidden=config.compared_features[1] == "hidden",
        )
    else:
        if (section.step2 or (section.step1 and section.route == "direct")) and not student.predicts_classes:
            raise UserError(
                f"student.kind {config.student.kind} predicts no classes, so no logit can be distilled onto it. Set "
                "objective.kind: none."
            )
        objective = RetrievalObjective(
            task.distil_onto,
            has_prompts=has_prompts,
            step1=section.step1,
            step2=section.step2,
            direct=section.route == "direct",
            detach_targets=section.detach_targets,
        )
    return objective, {**weights, **{term.name: getattr(section, term.weight) for term in objective.described}, **own}


def build_weighting(objective: ObjectiveConfig, terms: Sequence[Term], device: torch.device) -> Weighting | None:
    """Build the weighting; None if the weights are fixed.

    Args:
        objective: the `objective` section.
        terms: the weighted terms.
        device: device of the losses.
    """
    num_terms = len(terms)
    if isinstance(objective, AloneObjectiveConfig):
        return None
    match objective.weighting:
        case FixedWeightingConfig():
            return None
        case EqualWeightingConfig():
            return Weighting(num_terms, device)
        case UncertaintyWeightingConfig(lr=lr):
            return LabelUncertaintyWeighting([term.compares_label for term in terms], device, lr=lr)
        case UwSoWeightingConfig(temperature=temperature):
            return SoftOptimalUncertaintyWeighting(num_terms, device, temperature=temperature)
        case DwaWeightingConfig(temperature=temperature):
            return DynamicWeightAverage(num_terms, device, temperature=temperature)
        case RlwWeightingConfig():
            return RandomWeighting(num_terms, device)
        case FamoWeightingConfig(lr=lr):
            return FastAdaptiveWeighting(num_terms, device, lr=lr)
