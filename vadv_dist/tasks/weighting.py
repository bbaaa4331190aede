"""From `objective.weighting` to what weighs the terms."""

import torch

from vadv_dist.config.sections import Config, ObjectiveConfig
from vadv_dist.objectives.step_distillation import LABEL_TERMS, TERMS
from vadv_dist.objectives.weighting import (
    DynamicWeightAverage,
    FastAdaptiveWeighting,
    LabelUncertaintyWeighting,
    RandomWeighting,
    SoftOptimalUncertaintyWeighting,
    Weighting,
)


def weighted_terms(config: Config) -> tuple[str, ...]:
    """Terms that the model has and whose weight is not 0, ordered as `TERMS`."""
    objective, has_prompts = config.objective, config.teacher.prompting != "none"
    has_teacher = config.has_teacher
    exists = {
        "video_regression": has_teacher,
        "text_regression": True,
        "video_classification": has_teacher and has_prompts,
        "prompt_to_video": has_teacher and has_prompts and objective.step1,
        "video_to_text": has_teacher and objective.step2,
    }
    return tuple(name for name, weight in TERMS.items() if exists[name] and getattr(objective, weight) > 0)


def build_weighting(objective: ObjectiveConfig, terms: tuple[str, ...], device: torch.device) -> Weighting | None:
    """Build what weighs the terms; None where they have fixed weights.

    Args:
        objective: its settings.
        terms: names of the terms that are weighed.
        device: where the losses lie.
    """
    num_terms = len(terms)
    match objective.weighting:
        case "fixed":
            return None
        case "equal":
            return Weighting(num_terms, device)
        case "uncertainty":
            return LabelUncertaintyWeighting(
                [name in LABEL_TERMS for name in terms], device, lr=objective.uncertainty_lr
            )
        case "uw_so":
            return SoftOptimalUncertaintyWeighting(num_terms, device, temperature=objective.uw_so_temperature)
        case "dwa":
            return DynamicWeightAverage(num_terms, device, temperature=objective.dwa_temperature)
        case "rlw":
            return RandomWeighting(num_terms, device)
        case "famo":
            return FastAdaptiveWeighting(num_terms, device, lr=objective.famo_lr)
