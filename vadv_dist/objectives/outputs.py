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
