"""The outputs of teacher and student that an objective compares.

Shape letters: B batch, C classes, D width of a representation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


@dataclass(frozen=True)
class View:
    """What one model makes of the clips of a batch.

    Attributes:
        logit: its prediction: sentiment in label units [B], or scores of classes [B, C]; None if it predicts neither.
        features: its representation of the clips, [B, D]; None if the objective reads none.
        class_logits: scores of classes before a softmax, [B, C]; None if it has none.
    """

    logit: Tensor | None
    features: Tensor | None = None
    class_logits: Tensor | None = None


@dataclass(frozen=True)
class TeacherStudentOutputs:
    """The outputs of teacher and student of sentiment for one batch.

    Attributes:
        text_logit: the student's prediction: sentiment in label units [B], or scores of the classes [B, C].
        video_logit: the teacher's, of the same form; None without a teacher.
        prompt_logit: the video-enhanced prompt logit, of the same form; None without prompting.
        class_logits: similarity of video and class prompts before the softmax, [B, C]; None without prompting.
        text_features: the student's features that the objective compares, [B, D]; None if it compares none.
        video_features: the teacher's features that the objective compares, [B, D]; None if it compares none.
    """

    text_logit: Tensor
    video_logit: Tensor | None = None
    prompt_logit: Tensor | None = None
    class_logits: Tensor | None = None
    text_features: Tensor | None = None
    video_features: Tensor | None = None

    @property
    def teacher(self) -> View:
        """The teacher as a rival objective sees it.

        Raises:
            ValueError: there is no teacher.
        """
        if self.video_logit is None:
            raise ValueError("There is no teacher to distil from.")
        scores = self.class_logits if self.video_logit.ndim == 1 else self.video_logit
        return View(self.video_logit, self.video_features, scores)

    @property
    def student(self) -> View:
        """The student as a rival objective sees it."""
        return View(self.text_logit, self.text_features, None if self.text_logit.ndim == 1 else self.text_logit)


class PairOutputs(NamedTuple):
    """The outputs of a retrieval student for a batch of clips, one of each for both modalities.

    A tuple, because DeepSpeed ZeRO-3 finds tensors only in tuples, not in other classes.

    Attributes:
        audio_embedding, visual_embedding: ranked by their cosine, [B, E].
        audio_logit, visual_logit: scores of classes, [B, C]; None for a student that predicts none.
        own: what only the student's own terms read.
        audio_hidden, visual_hidden: hidden values that the embedding is made of, [B, H]; None without hidden layers.
    """

    audio_embedding: Tensor
    visual_embedding: Tensor
    audio_logit: Tensor | None = None
    visual_logit: Tensor | None = None
    own: tuple[Tensor, ...] = ()
    audio_hidden: Tensor | None = None
    visual_hidden: Tensor | None = None

    def views(self, *, hidden: bool = False) -> Mapping[str, View]:
        """Both by the name of the modality, with the embeddings or the hidden values as features."""
        audio = self.audio_hidden if hidden else self.audio_embedding
        visual = self.visual_hidden if hidden else self.visual_embedding
        return {
            "audio": View(self.audio_logit, audio, self.audio_logit),
            "visual": View(self.visual_logit, visual, self.visual_logit),
        }


@dataclass(frozen=True)
class RetrievalOutputs:
    """The outputs of teacher and student of retrieval for one batch.

    Attributes:
        pair: the student's.
        video_logit: the teacher's scores of classes, [B, C]; None without a teacher.
        video_features: the teacher's features that the objective compares, [B, D]; None without a teacher.
        prompt_logit: the video-enhanced prompt logit, [B, C]; None without prompting.
        class_logits: similarity of video and class prompts before the softmax, [B, C]; None without prompting.
    """

    pair: PairOutputs
    video_logit: Tensor | None = None
    video_features: Tensor | None = None
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
        compared: the rows whose features a rival compares, if these need another input; None if they are these.
    """

    label: Tensor
    valid: Tensor
    row_id: Tensor
    has_video: Tensor | None
    num_rows: int | Tensor
    num_video_rows: int | Tensor
    compared: "Rows | None" = None

    @property
    def counted(self) -> Tensor:
        """Real rows with the teacher's inputs, [B], bool."""
        valid = self.valid.bool()
        return valid if self.has_video is None else valid & self.has_video.bool()
