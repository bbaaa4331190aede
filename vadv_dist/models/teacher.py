"""The teacher: from a clip to a video logit and, through prompts, class scores and a prompt logit.

Shape letters: B batch, T frames, N visual tokens per frame, C classes, D width, Dv, Da, Dp widths of stored visual and
audio features and prompts, E expression scores.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from vadv_dist.errors import UserError
from vadv_dist.models.attention import POSITION_STD, learnable, linear
from vadv_dist.models.branches import AudioBranch, FaceBranch, VisualBranch
from vadv_dist.models.heads import TwoLayerMLP, without_autocast
from vadv_dist.models.prompting import VideoSpecificPrompting

_LOGIT_SCALE = 2.6592  # ln(1 / 0.07): the initial temperature of CLIP and X-CLIP


class TeacherOutputs(NamedTuple):
    """The teacher's outputs for a batch.

    A tuple, because DeepSpeed ZeRO-3 finds tensors only in tuples, not in other classes.

    Attributes:
        video_logit: sentiment in label units, [B]; or scores of the classes of an event, [B, C].
        class_logits: similarity of video and prompts before the softmax of eq. 8, [B, C]; None without prompts.
        prompt_logit: prompt logit, in the form of the video logit; None without prompts.
        video_features: the video representation of eq. 6, [B, D].
        visual_features, face_features: the vectors of both branches, [B, D]; None without the branch.
        audio_features: likewise, of the audio branch.
        prompts_features: the prompts adapted to the video (eq. 7) side by side, [B, C * D]; None without them.
    """

    video_logit: Tensor
    class_logits: Tensor | None
    prompt_logit: Tensor | None
    video_features: Tensor
    visual_features: Tensor | None = None
    face_features: Tensor | None = None
    prompts_features: Tensor | None = None
    audio_features: Tensor | None = None

    def features(self, name: str) -> Tensor:
        """The features `<name>_features`.

        Raises:
            ValueError: the teacher has none of this name.
        """
        found: Tensor | None = getattr(self, f"{name}_features", None)
        if found is None:
            raise ValueError(f"The teacher has no {name} features.")
        return found


class Teacher(nn.Module):
    """Branches for frames, face and optionally audio, their joint representation, and video-specific prompting.

    Source: VideoAdviser, arXiv:2309.15494, section 4.1, eq. 4-8. The paper does not state the activation of its
        two-layer
    MLPs; the teacher uses GELU.

    Args:
        visual_shape: (T, N, Dv) of a clip's frame features; None for no visual branch.
        face_shape: (T, E) of a clip's expression scores; None for no facial branch.
        audio_shape: (T, Da) or (Da,) of a clip's audio features; None for no audio branch, as in the paper.
        width: D, the common width of all branches.
        hidden: H, hidden width of the two-layer MLPs.
        heads: attention heads.
        cct_layers: layers of the CCT, 0 for none.
        mit_layers: layers of each MIT, 0 for none.
        prompt_layers: layers of video-specific prompting.
        prompt_alpha: initial scale of the prompts' video-specific part.
        prompting: `video` adapts the prompts to each video (eq. 7), `static` compares the video with fixed prompts,
            `none` has no prompts.
        similarity: `dot`, the plain product of eq. 8, or X-CLIP's `cosine` with a learnable temperature.
        num_classes: C.
        predicts_classes: whether the video and prompt logits are scores of the classes; otherwise they are one number.
        prompts: frozen prompt embeddings [C, Dp]; None learns C embeddings from small random ones.
        dropout: dropout of attention weights and hidden values.
    Raises:
        UserError: there is no branch, video-specific prompting has no visual branch, the width is not divisible by the
            heads, or the prompts are not one per class.
    """

    prompts: Tensor

    def __init__(
        self,
        *,
        visual_shape: tuple[int, int, int] | None,
        face_shape: tuple[int, int] | None,
        audio_shape: tuple[int, ...] | None = None,
        width: int,
        hidden: int,
        heads: int,
        cct_layers: int,
        mit_layers: int,
        prompt_layers: int,
        prompt_alpha: float,
        prompting: Literal["video", "static", "none"],
        similarity: Literal["dot", "cosine"],
        num_classes: int = 2,
        predicts_classes: bool = False,
        prompts: Tensor | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if visual_shape is None and face_shape is None and audio_shape is None:
            raise UserError(
                "The teacher has no input: set teacher.use_visual, teacher.use_face or teacher.use_audio to true."
            )
        if prompting == "video" and visual_shape is None:
            raise UserError(
                "teacher.prompting: video needs the visual branch, which prompts attend to. "
                "Set teacher.use_visual: true or teacher.prompting: static."
            )
        if heads < 1 or width % heads:
            raise UserError(
                f"teacher.width is {width}, which is not divisible by teacher.heads = {heads}. "
                "Set teacher.heads to a divisor of the width."
            )
        self.visual_branch = (
            VisualBranch(
                shape=visual_shape,
                width=width,
                heads=heads,
                cct_layers=cct_layers,
                mit_layers=mit_layers,
                dropout=dropout,
            )
            if visual_shape is not None
            else None
        )
        self.face_branch = (
            FaceBranch(shape=face_shape, width=width, heads=heads, mit_layers=mit_layers, dropout=dropout)
            if face_shape is not None
            else None
        )
        self.audio_branch = (
            AudioBranch(shape=audio_shape, width=width, heads=heads, mit_layers=mit_layers, dropout=dropout)
            if audio_shape is not None
            else None
        )
        num_branches = sum(shape is not None for shape in (visual_shape, face_shape, audio_shape))
        self.fusion = TwoLayerMLP(num_branches * width, hidden, width, "gelu", dropout=dropout)  # eq. 6
        self.width = width
        self._num_classes = num_classes
        self.predicts_classes = predicts_classes
        values = num_classes if predicts_classes else 1
        self.video_head = TwoLayerMLP(width, hidden, values, "gelu", dropout=dropout)
        self.similarity = similarity
        self.has_prompts = prompting != "none"
        if not self.has_prompts:
            return

        self.prompt_projection: nn.Linear | None = None
        if prompts is None:
            self.prompts = learnable(num_classes, width, std=POSITION_STD)
        else:
            if prompts.ndim != 2 or len(prompts) != num_classes:
                raise UserError(
                    f"The data set's prompts have shape {list(prompts.shape)}, expected [{num_classes}, width]: "
                    "one embedding per class. Store prompts of that shape, or none."
                )
            self.register_buffer("prompts", prompts.detach().clone().float())
            if prompts.shape[1] != width:
                self.prompt_projection = linear(prompts.shape[1], width)
        self.prompting = (
            VideoSpecificPrompting(width=width, heads=heads, layers=prompt_layers, alpha=prompt_alpha, dropout=dropout)
            if prompting == "video"
            else None
        )
        if similarity == "cosine":
            self.logit_scale = nn.Parameter(torch.full((1,), _LOGIT_SCALE))
        self.prompt_head = TwoLayerMLP(num_classes, hidden, values, "gelu", dropout=dropout)

    def forward(
        self,
        *,
        visual: Tensor | None = None,
        face: Tensor | None = None,
        audio: Tensor | None = None,
        has_visual: Tensor | None = None,
        has_face: Tensor | None = None,
        has_audio: Tensor | None = None,
    ) -> TeacherOutputs:
        """Compute the logits of a batch.

        A row without a branch's feature has zeros as that branch's representation, and its prompts are not adapted if
        it has no video; the stored values of a missing feature are never used, not even in the gradient.

        Args:
            visual: frame features, [B, T, N, Dv]; used by the visual branch.
            face: expression scores, [B, T, E]; used by the facial branch.
            audio: audio features, [B, T, Da] or [B, Da]; used by the audio branch.
            has_visual, has_face, has_audio: 1 for rows with the feature, 0 for others, [B]; None if all have it.
        Returns:
            logits in fp32.
        Raises:
            ValueError: the feature of a branch is not given.
        """
        seen_BD: Tensor | None = None
        face_BD: Tensor | None = None
        tokens_BTND: Tensor | None = None
        if self.visual_branch is not None:
            if visual is None:
                raise ValueError("The teacher has a visual branch, but no visual features were given.")
            seen_BD, tokens_BTND = self.visual_branch(_zero_missing(visual, has_visual))
            seen_BD = _zero_missing(seen_BD, has_visual)
        if self.face_branch is not None:
            if face is None:
                raise ValueError("The teacher has a facial branch, but no expression scores were given.")
            face_BD = _zero_missing(self.face_branch(_zero_missing(face, has_face)), has_face)
        heard_BD: Tensor | None = None
        if self.audio_branch is not None:
            if audio is None:
                raise ValueError("The teacher has an audio branch, but no audio features were given.")
            heard_BD = _zero_missing(self.audio_branch(_zero_missing(audio, has_audio)), has_audio)
        parts = [part for part in (seen_BD, face_BD, heard_BD) if part is not None]
        video_BD = self.fusion(torch.cat(parts, dim=-1))  # eq. 6
        video_logit = self._logit(self.video_head(video_BD))
        if not self.has_prompts:
            return TeacherOutputs(video_logit, None, None, video_BD, seen_BD, face_BD, None, heard_BD)

        prompts_CD = self.prompts
        if self.prompt_projection is not None:
            prompts_CD = self.prompt_projection(prompts_CD.to(self.prompt_projection.weight.dtype))
        prompts_BCD = prompts_CD.expand(len(video_BD), -1, -1)
        if self.prompting is not None and tokens_BTND is not None:
            prompts_BCD = self.prompting(prompts_CD, tokens_BTND)  # eq. 7
            if has_visual is not None:
                prompts_BCD = torch.where(has_visual.bool()[:, None, None], prompts_BCD, prompts_CD)
        class_logits_BC = self._scores(video_BD, prompts_BCD)
        share_BC = class_logits_BC.softmax(dim=-1)  # eq. 8
        adapted = None if self.prompting is None else prompts_BCD.flatten(start_dim=1)
        prompt_logit = self._logit(self.prompt_head(share_BC))
        return TeacherOutputs(video_logit, class_logits_BC, prompt_logit, video_BD, seen_BD, face_BD, adapted, heard_BD)

    def feature_width(self, name: str) -> int:
        """Width of `TeacherOutputs.features(name)`."""
        return self.width * (self._num_classes if name == "prompts" else 1)

    def freeze_unused(
        self, *, video_logit: bool = True, class_logits: bool = True, prompt_logit: bool = True
    ) -> list[str]:
        """Freeze the parameters that no used output depends on.

        Data-parallel training waits for the gradient of every trained parameter. With the step-distillation objective,
        only the prompt logit can be without a gradient: if step 1 is off.

        Args:
            video_logit, class_logits, prompt_logit: whether the loss depends on this output.
        Returns:
            names of the frozen parameters.
        """
        prompt_parts = ("prompts", "prompt_projection", "prompting", "logit_scale")
        used = {"video_head": video_logit, "prompt_head": prompt_logit}
        used |= dict.fromkeys(prompt_parts, class_logits or prompt_logit)
        anything = video_logit or class_logits or prompt_logit
        frozen = []
        for name, parameter in self.named_parameters():
            if not used.get(name.split(".")[0], anything):
                parameter.requires_grad_(False)
                frozen.append(name)
        return frozen

    def _logit(self, values: Tensor) -> Tensor:
        """A head's values [B, 1] or [B, C] as a logit [B] or [B, C]."""
        return values if self.predicts_classes else values.squeeze(-1)

    def _scores(self, video_BD: Tensor, prompts_BCD: Tensor) -> Tensor:
        with without_autocast(video_BD.device):
            prompts_BCD = prompts_BCD.to(video_BD.dtype)
            if self.similarity == "cosine":
                video_BD = nn.functional.normalize(video_BD, dim=-1) * self.logit_scale.to(video_BD.dtype).exp()
                prompts_BCD = nn.functional.normalize(prompts_BCD, dim=-1)
            return (prompts_BCD @ video_BD.unsqueeze(-1)).squeeze(-1)


def _zero_missing(values: Tensor, present_B: Tensor | None) -> Tensor:
    """Replace missing rows [B, ...] by zeros; a product would keep their NaN."""
    if present_B is None:
        return values
    missing = ~present_B.bool()
    return values.masked_fill(missing.view(-1, *[1] * (values.ndim - 1)), 0.0)
