"""The named outputs of teacher and student that an objective compares.

Shape letters: B batch, C classes.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TeacherStudentOutputs:
    """What teacher and student say about one batch.

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
    """What an objective knows of the rows of a micro-batch besides the models' outputs.

    Attributes:
        label: in label units, or the number of a class, [B].
        valid: 1 on real rows, 0 on filler, [B].
        row_id: number of each row in its split, [B]: the same in every epoch and on every rank.
        has_video: 1 on rows that have what the teacher needs, [B]; None where all have it.
        num_rows: real rows of the global batch.
        num_video_rows: those of them that have what the teacher needs.
    """

    label: Tensor
    valid: Tensor
    row_id: Tensor
    has_video: Tensor | None
    num_rows: int
    num_video_rows: int
