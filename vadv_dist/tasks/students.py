"""Build the retrieval student that the configuration's `student` section names."""

from dataclasses import fields

from vadv_dist.config.student_sections import (
    CCcaConfig,
    CctlConfig,
    CDccaConfig,
    DclmaConfig,
    DscmrConfig,
    EicsConfig,
    InstanceLossConfig,
    RandomConfig,
    StudentConfig,
    TextStudentConfig,
    TnnCCcaConfig,
    VaeCcaConfig,
)
from vadv_dist.students.base import RetrievalStudent
from vadv_dist.students.c_cca import CCca
from vadv_dist.students.c_dcca import CDcca
from vadv_dist.students.cctl import Cctl
from vadv_dist.students.dclma import Dclma
from vadv_dist.students.dscmr import Dscmr
from vadv_dist.students.eics import Eics
from vadv_dist.students.instance_loss import InstanceLoss
from vadv_dist.students.random_projection import RandomProjection
from vadv_dist.students.tnn_c_cca import TnnCCca
from vadv_dist.students.vae_cca import VaeCca

# By section; a section's fields are the keywords of the class.
STUDENTS: dict[type, type[RetrievalStudent]] = {
    EicsConfig: Eics,
    DscmrConfig: Dscmr,
    CCcaConfig: CCca,
    CDccaConfig: CDcca,
    TnnCCcaConfig: TnnCCca,
    CctlConfig: Cctl,
    InstanceLossConfig: InstanceLoss,
    RandomConfig: RandomProjection,
    DclmaConfig: Dclma,
    VaeCcaConfig: VaeCca,
}


def build_retrieval_student(
    config: StudentConfig, audio_width: int, visual_width: int, num_classes: int
) -> RetrievalStudent:
    """Build a student for vectors of the given widths.

    Raises:
        UserError: the configuration does not fit the widths or the number of classes.
    """
    if isinstance(config, TextStudentConfig):
        raise ValueError("A text student reads no vectors.")
    options = {field.name: getattr(config, field.name) for field in fields(config) if field.name != "kind"}
    return STUDENTS[type(config)](audio_width, visual_width, num_classes, **options)
