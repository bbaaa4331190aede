"""The outputs of teacher and student that an objective compares.

Shape letters: B batch, C classes.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TeacherStudentOutputs:
    """The outputs of teacher and student for one batch.

    Attributes:
        text_logit: the student's sentiment in label units, [B].
        video_logit: the teacher's sentiment in label units, [B]; None without a teacher.
        prompt_logit: the video-enhanced prompt logit in label units, [B]; None without prompting.
        class_logits: similarity of video and class prompts before the softmax, [B, C]; None without prompting.
    """

    text_logit: Tensor
    video_logit: Tensor | None = None
    prompt_logit: Tensor | None = None
    class_logits: Tensor | None = None


@dataclass(frozen=True)
class Rows:
    """The rows of a micro-batch as an objective sees them, apart from the models' outputs.

    Attributes:
        label: in label units, or the index of a class, [B].
        valid: 1 for real rows, 0 for filler, [B].
        row_id: index of each row in its split, [B]: the same in every epoch and on every rank; -1 for filler.
        has_video: 1 for rows with the teacher's inputs, [B]; None if all have them.
        num_rows: number of real rows in the global batch, at least 1.
        num_video_rows: number of these with the teacher's inputs, at least 1.
    """

    label: Tensor
    valid: Tensor
    row_id: Tensor
    has_video: Tensor | None
    num_rows: int | Tensor
    num_video_rows: int | Tensor
