"""What a teacher adds to a retrieval student's own terms: its supervision, and distillation onto audio and visual.

Shape letters: B batch, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from vadv_dist.evaluation.description import Term
from vadv_dist.objectives.base import Objective
from vadv_dist.objectives.distillation import Distillation
from vadv_dist.objectives.outputs import RetrievalOutputs, Rows, View
from vadv_dist.objectives.rival_objective import detached
from vadv_dist.objectives.step_distillation import class_cross_entropy, mean_squared_error, supervised_terms

VIDEO, _, PROMPT = supervised_terms(None)
STEP_1 = Term("prompt_to_video", "Step 1: prompt to video logit", "p→v", weight="delta")
STEP_2 = {
    "audio": Term(
        "video_to_audio", "Step 2: video to audio logit", "v→a", "", "psi", trains_student=True, distils=True
    ),
    "visual": Term(
        "video_to_visual", "Step 2: video to visual logit", "v→i", "", "psi", trains_student=True, distils=True
    ),
}
# In place of step 1, if the prompt's knowledge goes to the student directly.
DIRECT = {
    "audio": Term("prompt_to_audio", "Prompt to audio logit", "p→a", "", "delta", trains_student=True, distils=True),
    "visual": Term("prompt_to_visual", "Prompt to visual logit", "p→i", "", "delta", trains_student=True, distils=True),
}


class RetrievalObjective(Objective):
    """The teacher's terms, and step distillation or a rival onto each modality (VideoAdviser, section 4 and Table 8).

    The squared distances of logits are means over rows and classes.

    Args:
        onto: modalities of the student that are distilled onto.
        has_prompts: whether the teacher has a prompt logit.
        step1, step2: enable each step of step distillation.
        direct: step 1 ties the prompt logit to each modality's logit instead of the video logit, so that both reach the
            student directly.
        detach_targets: block the gradient of distillation into the teacher; that of step 1 always flows.
        rivals: distillation by modality, instead of both steps.
        hidden: whether rivals compare the student's hidden values, not its embeddings.
    """

    reads_features = True

    def __init__(
        self,
        onto: Sequence[str],
        *,
        has_prompts: bool,
        step1: bool = True,
        step2: bool = True,
        direct: bool = False,
        detach_targets: bool = False,
        rivals: Mapping[str, Distillation] | None = None,
        hidden: bool = False,
    ) -> None:
        super().__init__()
        self.onto = tuple(onto)
        self.has_prompts = has_prompts
        self.step1 = step1 and has_prompts and rivals is None
        self.step2 = step2 and rivals is None
        self.direct = direct
        self.detach_targets = detach_targets
        self.rivals = nn.ModuleDict(dict(rivals or {}))
        self.hidden = hidden
        self.described = (
            VIDEO,
            *([PROMPT] if has_prompts else []),
            *([STEP_1] if self.step1 and not direct else []),
            *([DIRECT[modality] for modality in self.onto] if self.step1 and direct else []),
            *([STEP_2[modality] for modality in self.onto] if self.step2 else []),
            *(_onto(term, modality) for modality, rival in (rivals or {}).items() for term in rival.described),
        )

    def forward(self, outputs: RetrievalOutputs, rows: Rows) -> dict[str, Tensor]:
        """Compute the unweighted terms of one micro-batch, each []."""
        video, views = outputs.video_logit, outputs.pair.views(hidden=self.hidden)
        if video is None:
            raise ValueError("There is no teacher to distil from.")
        teacher = View(video, outputs.video_features, video)
        target = detached(teacher) if self.detach_targets else teacher
        terms = {VIDEO.name: cross_entropy(video, rows)}
        if outputs.class_logits is not None:
            terms[PROMPT.name] = cross_entropy(outputs.class_logits, rows)
        if self.step1 and outputs.prompt_logit is not None:
            if self.direct:
                for modality in self.onto:
                    logit = _logit(views, modality)
                    terms[DIRECT[modality].name] = squared_error(outputs.prompt_logit, logit, rows)
            else:
                terms[STEP_1.name] = squared_error(outputs.prompt_logit, video, rows)
        if self.step2 and target.logit is not None:
            for modality in self.onto:
                terms[STEP_2[modality].name] = squared_error(target.logit, _logit(views, modality), rows)
        for modality, rival in self.rivals.items():
            found: dict[str, Tensor] = rival(target, views[modality], rows)
            terms |= {f"{name}_{modality}": value for name, value in found.items()}
        return terms


def _logit(views: Mapping[str, View], modality: str) -> Tensor:
    logit = views[modality].logit
    if logit is None:
        raise ValueError(f"The student has no {modality} logit.")
    return logit


def squared_error(left_BC: Tensor, right_BC: Tensor, rows: Rows) -> Tensor:
    """Local share of the mean squared distance of two logits, over rows that count and classes, []."""
    return mean_squared_error(left_BC, right_BC, counts_B=rows.counted, num_rows=rows.num_video_rows)


def cross_entropy(logit_BC: Tensor, rows: Rows) -> Tensor:
    """Local share of the mean cross-entropy with the class of each row that counts, []."""
    counts, num_rows = rows.counted, rows.num_video_rows
    return class_cross_entropy(logit_BC, rows.label, counts_B=counts, num_rows=num_rows, threshold=None)


def _onto(term: Term, modality: str) -> Term:
    return replace(term, name=f"{term.name}_{modality}", title=f"{term.title}, {modality}", mark=f"({modality})")
