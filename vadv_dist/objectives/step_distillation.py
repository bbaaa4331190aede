"""The five-term objective: knowledge steps from class scores to the video logit and from there to the text logit.

If labels are numbers, a logit is a prediction in label units [B]; if they are classes, it has a score of each [B, C].

Shape letters: B rows of this rank's micro-batch, C classes.

Every term is the sum over counted local rows, divided by the number of such rows in the *global* batch. Summed over
ranks and micro-batches, the terms and their gradients are therefore the means of the paper.
"""

from functools import partial

import torch
from torch import Tensor, nn

from vadv_dist.evaluation.description import Term
from vadv_dist.objectives.base import Objective, at_least_fp32
from vadv_dist.objectives.outputs import Rows, TeacherStudentOutputs

# The terms with the names of their weights (eq. 15), in the order of the weights.
TERMS = (
    Term("video_regression", "Video logit to label", "v", "(r)", "alpha", compares_label=True),  # eq. 10
    Term(  # eq. 11
        "text_regression", "Text logit to label", "t", "(r)", "beta", compares_label=True, trains_student=True
    ),
    Term("video_classification", "Class of the label", "v", "(c)", "gamma", compares_label=True),  # eq. 12
    Term("prompt_to_video", "Step 1: prompt to video logit", "p→v", weight="delta"),  # eq. 13
    Term(  # eq. 14
        "video_to_text", "Step 2: video to text logit", "v→t", weight="psi", trains_student=True, distils=True
    ),
)
# The first three if labels are classes: cross-entropies.
CLASS_TERMS = (
    Term("video_class", "Class of the video logit", "v", "(c)", "alpha", compares_label=True),
    Term("text_class", "Class of the text logit", "t", "(c)", "beta", compares_label=True, trains_student=True),
    Term("prompt_class", "Class of the prompt scores", "p", "(c)", "gamma", compares_label=True),
)
# In place of step 1, if the prompt's knowledge goes to the student directly.
PROMPT_TO_TEXT = Term(
    "prompt_to_text", "Prompt to text logit", "p→t", weight="delta", trains_student=True, distils=True
)
_ORDER = tuple(term.name for term in (*TERMS[:3], *CLASS_TERMS, TERMS[3], PROMPT_TO_TEXT, TERMS[4]))


def supervised_terms(threshold: float | None) -> tuple[Term, Term, Term]:
    """Terms that compare the video logit, the text logit and the prompt scores with the label.

    Args:
        threshold: lowest positive label; None if labels are classes.
    """
    video, text, prompts = TERMS[:3] if threshold is not None else CLASS_TERMS
    return video, text, prompts


def mean_squared_error(left_B: Tensor, right_B: Tensor, *, counts_B: Tensor, num_rows: int | Tensor) -> Tensor:
    """Mean squared distance of two logits, or of a logit and the label (eq. 10, 11, 13, 14).

    Args:
        left_B, right_B: logits, both [B], or both [B, C], whose distances are averaged over classes; gradients flow
            into both.
        counts_B: true for counted rows, [B]; the values of others are ignored.
        num_rows: number of counted rows in the global batch, at least 1.
    Returns:
        local share of the mean, [], fp32 or wider.
    """
    # Select rather than multiply: NaN times 0 would be NaN, here and in the gradient.
    counts = counts_B if left_B.ndim == 1 else counts_B[:, None]
    distance = torch.where(counts, at_least_fp32(left_B) - at_least_fp32(right_B), 0.0).square()
    return (distance if left_B.ndim == 1 else distance.mean(dim=-1)).sum() / num_rows


def class_cross_entropy(
    class_logits_BC: Tensor, label_B: Tensor, *, counts_B: Tensor, num_rows: int | Tensor, threshold: float | None = 0.0
) -> Tensor:
    """Mean cross-entropy of p = softmax(class logits) with class(label) = [label ≥ threshold] (eq. 8, 12).

    Args:
        class_logits_BC: scores before the softmax, [B, C], in the order of classes, or negative class first.
        label_B: sentiment in label units, or classes from 0, [B].
        counts_B: true for counted rows, [B]; the values of others are ignored.
        num_rows: number of counted rows in the global batch, at least 1.
        threshold: lowest positive label; 0 in the paper. None if labels are classes.
    Returns:
        local share of the mean, [], fp32 or wider.
    """
    scores_BC = torch.where(counts_B[:, None], at_least_fp32(class_logits_BC), 0.0)
    class_B = label_B.long() if threshold is None else (label_B >= threshold).long()
    entropy_B = nn.functional.cross_entropy(scores_BC, class_B, reduction="none")
    return torch.where(counts_B, entropy_B, 0.0).sum() / num_rows


def step_distillation(
    outputs: TeacherStudentOutputs,
    *,
    counts_B: Tensor,
    num_rows: int | Tensor,
    step1: bool = True,
    step2: bool = True,
    direct: bool = False,
    detach_targets: bool = False,
) -> dict[str, Tensor]:
    """Distances that carry knowledge from prompt to video to text logit (VideoAdviser, arXiv:2309.15494, eq. 13-14).

    Args:
        outputs: logits of one batch.
        counts_B: true for counted rows, [B].
        num_rows: number of counted rows in the global batch, at least 1.
        step1, step2: enable each step.
        direct: step 1 ties the prompt logit to the text logit instead of the video logit, so that both reach the
            student directly.
        detach_targets: block the gradient of step 2 into the teacher. In the equations it flows through both sides, and
            in step 1 it always does, because only eq. 13 trains the head of the prompt logit.
    Returns:
        unweighted terms, each []; only those that are enabled and whose logits exist.
    """
    terms: dict[str, Tensor] = {}
    if outputs.video_logit is None:
        return terms
    if step1 and outputs.prompt_logit is not None:
        name, onto_B = (PROMPT_TO_TEXT.name, outputs.text_logit) if direct else ("prompt_to_video", outputs.video_logit)
        terms[name] = mean_squared_error(outputs.prompt_logit, onto_B, counts_B=counts_B, num_rows=num_rows)
    if step2:
        video_B = outputs.video_logit.detach() if detach_targets else outputs.video_logit
        terms["video_to_text"] = mean_squared_error(video_B, outputs.text_logit, counts_B=counts_B, num_rows=num_rows)
    return terms


def loss_terms(
    outputs: TeacherStudentOutputs,
    label_B: Tensor,
    *,
    valid_B: Tensor,
    has_video_B: Tensor | None,
    num_rows: int | Tensor,
    num_video_rows: int | Tensor,
    threshold: float | None = 0.0,
    step1: bool = True,
    step2: bool = True,
    direct: bool = False,
    detach_targets: bool = False,
) -> dict[str, Tensor]:
    """All terms of the objective (VideoAdviser, arXiv:2309.15494, eq. 10-14), unweighted.

    Args:
        outputs: logits of one batch.
        label_B: sentiment in label units, or classes from 0, [B].
        valid_B: 1 for real rows, 0 for filler, [B].
        has_video_B: 1 for rows with the teacher's inputs, [B]; None if all have them.
        num_rows: number of real rows in the global batch, at least 1.
        num_video_rows: number of these with the teacher's inputs, at least 1.
        threshold: as in `class_cross_entropy`.
        step1, step2, direct, detach_targets: as in `step_distillation`.
    Returns:
        local share of each existing term, [], fp32 or wider, keyed and ordered as `TERMS`, the first three as those of
        `supervised_terms`: only that of the text logit without a teacher, and neither that of the prompt scores nor one
        of the prompt logit without prompting.
    Raises:
        ValueError: the tensors differ in length.
    """
    _require_same_length(outputs, label_B, valid_B, has_video_B, logit_axes=1 if threshold is not None else 2)
    valid_B = valid_B.bool()
    video_B = valid_B if has_video_B is None else valid_B & has_video_B.bool()

    terms: dict[str, Tensor] = {}
    video, text, prompts = (term.name for term in supervised_terms(threshold))
    compare = mean_squared_error if threshold is not None else partial(class_cross_entropy, threshold=None)
    terms[text] = compare(outputs.text_logit, label_B, counts_B=valid_B, num_rows=num_rows)  # eq. 11
    if outputs.video_logit is not None:
        terms[video] = compare(outputs.video_logit, label_B, counts_B=video_B, num_rows=num_video_rows)  # eq. 10
    if outputs.class_logits is not None:
        terms[prompts] = class_cross_entropy(  # eq. 12
            outputs.class_logits, label_B, counts_B=video_B, num_rows=num_video_rows, threshold=threshold
        )
    terms |= step_distillation(
        outputs,
        counts_B=video_B,
        num_rows=num_video_rows,
        step1=step1,
        step2=step2,
        direct=direct,
        detach_targets=detach_targets,
    )
    return {name: terms[name] for name in _ORDER if name in terms}


class StepDistillation(Objective):
    """The five-term objective as a module (eq. 10-14).

    Args:
        has_teacher, has_prompts: which logits the models return.
        threshold: lowest positive label; None if labels are classes.
        step1, step2, direct, detach_targets: as in `step_distillation`.
    """

    def __init__(
        self,
        *,
        has_teacher: bool = True,
        has_prompts: bool = True,
        threshold: float | None = 0.0,
        step1: bool = True,
        step2: bool = True,
        direct: bool = False,
        detach_targets: bool = False,
    ) -> None:
        super().__init__()
        self.threshold = threshold
        self.step1, self.step2, self.direct, self.detach_targets = step1, step2, direct, detach_targets
        video, text, prompts = supervised_terms(threshold)
        exists = {
            video.name: has_teacher,
            text.name: True,
            prompts.name: has_teacher and has_prompts,
            "prompt_to_video": has_teacher and has_prompts and step1 and not direct,
            PROMPT_TO_TEXT.name: has_teacher and has_prompts and step1 and direct,
            "video_to_text": has_teacher and step2,
        }
        described = {term.name: term for term in (video, text, prompts, *TERMS[3:], PROMPT_TO_TEXT)}
        self.described = tuple(described[name] for name in _ORDER if exists.get(name))

    def forward(self, outputs: TeacherStudentOutputs, rows: Rows) -> dict[str, Tensor]:
        """Compute the unweighted terms of one micro-batch, each []; see `loss_terms`."""
        return loss_terms(
            outputs,
            rows.label,
            valid_B=rows.valid,
            has_video_B=rows.has_video,
            num_rows=rows.num_rows,
            num_video_rows=rows.num_video_rows,
            threshold=self.threshold,
            step1=self.step1,
            step2=self.step2,
            direct=self.direct,
            detach_targets=self.detach_targets,
        )


def _require_same_length(
    outputs: TeacherStudentOutputs, label_B: Tensor, valid_B: Tensor, has_video_B: Tensor | None, *, logit_axes: int
) -> None:
    given = {
        "label": (label_B, 1),
        "valid": (valid_B, 1),
        "has_video": (has_video_B, 1),
        "text_logit": (outputs.text_logit, logit_axes),
        "video_logit": (outputs.video_logit, logit_axes),
        "prompt_logit": (outputs.prompt_logit, logit_axes),
        "class_logits": (outputs.class_logits, 2),
    }
    for name, (values, axes) in given.items():
        if values is not None and (values.ndim != axes or len(values) != len(label_B)):
            raise ValueError(f"{name} has shape {list(values.shape)}, but the labels have {list(label_B.shape)}.")
