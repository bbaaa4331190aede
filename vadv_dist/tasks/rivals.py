"""Build the rival of step distillation that the configuration's `objective` section names."""

from dataclasses import dataclass

from vadv_dist.config.rival_sections import (
    COMPARE_FEATURES,
    AmidConfig,
    CckdConfig,
    CrdConfig,
    DistConfig,
    DkdConfig,
    FitNetConfig,
    KdConfig,
    PktConfig,
    RivalConfig,
    RkdConfig,
    SpConfig,
    VidConfig,
)
from vadv_dist.errors import UserError
from vadv_dist.objectives.amid import AMID
from vadv_dist.objectives.cckd import CCKD
from vadv_dist.objectives.class_head import WithClassHead
from vadv_dist.objectives.crd import CRD
from vadv_dist.objectives.dist import DIST
from vadv_dist.objectives.distillation import Distillation
from vadv_dist.objectives.dkd import DKD
from vadv_dist.objectives.fitnet import FitNet
from vadv_dist.objectives.kd import KD
from vadv_dist.objectives.pkt import PKT
from vadv_dist.objectives.rkd import RKD
from vadv_dist.objectives.sp import SP
from vadv_dist.objectives.vid import VID


@dataclass(frozen=True)
class Sides:
    """What a rival must know of the two models and the data.

    Attributes:
        teacher_width, student_width: widths of the features.
        num_rows: rows of the training split, of which `row_id` is an index.
        seed: seed of the run.
        num_classes: classes of both models' scores; None where they predict one number.
        threshold: lowest label of the positive class, if they predict one number.
        student_has_scores: whether the student predicts classes, if the teacher does.
    """

    teacher_width: int
    student_width: int
    num_rows: int
    seed: int
    num_classes: int | None = None
    threshold: float | None = 0.0
    student_has_scores: bool = True


def build_rival(section: RivalConfig, sides: Sides) -> tuple[Distillation, dict[str, float]]:
    """Build a rival's loss, and the fixed weights of its terms by name.

    Where the models predict one number, a loss on class probabilities compares the teacher's two prompts with a head on
    the student's features.

    Raises:
        UserError: the student lacks what the loss compares, or all terms that exist have the weight 0.
    """
    distillation = _built(section, sides)
    if distillation.reads != "features" and not sides.student_has_scores:
        raise UserError(
            f"objective.kind {section.kind} compares scores of classes, but the student has none. Set objective.kind "
            f"to one that compares features ({', '.join(COMPARE_FEATURES)}), or choose another student.kind."
        )
    if distillation.reads == "classes" and sides.num_classes is None:
        distillation = WithClassHead(distillation, student_width=sides.student_width, threshold=sides.threshold or 0.0)
    factors = _factors(section)
    weights = {term.name: section.psi * factors.get(term.name, 1.0) for term in distillation.described}
    if section.psi > 0 and not any(weights.values()):
        (name,) = weights
        field = "target" if isinstance(section, DkdConfig) else "intra"
        raise UserError(
            f"objective.kind {section.kind} can teach nothing: below three classes, only its term {name} is not "
            f"constant, but objective.{field} is 0. Set it above 0."
        )
    return distillation, weights


def _built(section: RivalConfig, sides: Sides) -> Distillation:
    widths = {"teacher_width": sides.teacher_width, "student_width": sides.student_width}
    match section:
        case KdConfig():
            return KD(temperature=section.temperature)
        case DkdConfig():
            return DKD(temperature=section.temperature, num_classes=sides.num_classes or 2)
        case FitNetConfig():
            return FitNet(**widths)
        case PktConfig():
            return PKT()
        case CrdConfig():
            return CRD(
                **widths,
                num_rows=sides.num_rows,
                width=section.width,
                negatives=section.negatives,
                temperature=section.temperature,
                momentum=section.momentum,
                seed=sides.seed,
            )
        case RkdConfig():
            return RKD()
        case SpConfig():
            return SP()
        case CckdConfig():
            return CCKD(gamma=section.bandwidth, order=section.order)
        case VidConfig():
            return VID(**widths, initial_variance=section.initial_variance)
        case DistConfig():
            return DIST(temperature=section.temperature, num_classes=sides.num_classes or 1)
        case AmidConfig():
            return AMID(
                **widths,
                num_classes=sides.num_classes or 1,
                width=section.width,
                temperature=section.temperature,
                adversary_lr=section.adversary_lr,
            )
    raise TypeError(f"{type(section).__name__} is no rival.")


def _factors(section: RivalConfig) -> dict[str, float]:
    """Factors on `psi` of a rival's terms; 1 for others."""
    match section:
        case DkdConfig():
            return {"dkd_target": section.target, "dkd_non_target": section.non_target}
        case RkdConfig():
            return {"rkd_distance": section.distance, "rkd_angle": section.angle}
        case DistConfig():
            return {"dist_inter": section.inter, "dist_intra": section.intra}
        case AmidConfig():
            return {
                "amid_teacher": section.supervision,
                "amid_auxiliary": section.auxiliary,
                "amid_entropy": section.entropy,
            }
    return {}
