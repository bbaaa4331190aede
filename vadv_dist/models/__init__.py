"""Teacher and students: plain torch modules with plain arguments."""

from vadv_dist.models.teacher import Teacher, TeacherOutputs
from vadv_dist.models.text_student import TextStudent, build_encoder, build_tokenizer

__all__ = ["Teacher", "TeacherOutputs", "TextStudent", "build_encoder", "build_tokenizer"]
