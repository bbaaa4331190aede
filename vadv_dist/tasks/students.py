"""Build the retrieval student that the configuration's `student` section names."""

from vadv_dist.config.student_sections import EicsConfig, StudentConfig, TextStudentConfig
from vadv_dist.students.base import RetrievalStudent
from vadv_dist.students.eics import Eics

# Kinds that `RetrievalStudent.fit` determines.
CLOSED_FORM: tuple[str, ...] = ()


def build_retrieval_student(
    config: StudentConfig, audio_width: int, visual_width: int, num_classes: int
) -> RetrievalStudent:
    """Build a student for vectors of the given widths."""
    widths = (audio_width, visual_width, num_classes)
    match config:
        case EicsConfig():
            return Eics(
                *widths,
                hidden=config.hidden,
                layers=config.layers,
                explicit=config.explicit,
                gap=config.gap,
                implicit=config.implicit,
                dropout=config.dropout,
            )
        case TextStudentConfig():
            raise ValueError("A text student reads no vectors.")
