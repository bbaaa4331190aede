"""Sentiment: a text student beside its video teacher, the five-term objective, regression metrics."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vadv_dist.config.sections import Config
from vadv_dist.data.collate import Collator
from vadv_dist.data.prompts import load_prompts
from vadv_dist.data.schema import Batch
from vadv_dist.data.sources import Sources
from vadv_dist.errors import UserError
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.evaluation.remarks import remarks, spread
from vadv_dist.models.encoders import build_encoder, build_tokenizer, require_fitting
from vadv_dist.models.heads import start_in_label_units
from vadv_dist.models.teacher import Teacher
from vadv_dist.models.text_student import TextStudent
from vadv_dist.models.token_limit import longest_text
from vadv_dist.objectives.collapse import find_collapse
from vadv_dist.objectives.outputs import TeacherStudentOutputs
from vadv_dist.objectives.step_distillation import TERMS, loss_terms, weighted_total
from vadv_dist.objectives.weighting import Weighting
from vadv_dist.tasks.base import FloatArray, Metrics, ParameterGroup
from vadv_dist.tasks.parameter_groups import parameter_groups
from vadv_dist.tasks.weighting import build_weighting, weighted_terms

# Names of the logits in predictions, and of the model whose metrics they give.
LOGITS = {"text_logit": "student", "video_logit": "video", "prompt_logit": "prompt"}

# Layers whose output is in label units.
LAST_LAYERS = ("student.out", "teacher.video_head.out", "teacher.prompt_head.out")


class TeacherStudent(nn.Module):
    """Teacher and student as one module, so that one engine trains both.

    Args:
        student: reads the words.
        teacher: watches the video, or None where the student is trained alone.
    """

    def __init__(self, student: TextStudent, teacher: Teacher | None) -> None:
        super().__init__()
        self.student = student
        self.teacher = teacher

    def forward(
        self,
        *,
        input_ids: Tensor,
        attention_mask: Tensor,
        visual: Tensor | None = None,
        face: Tensor | None = None,
        has_visual: Tensor | None = None,
        has_face: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the logits that exist: text_logit [B], video_logit [B], class_logits [B, C], prompt_logit [B]."""
        outputs = {"text_logit": self.student(input_ids, attention_mask)}
        if self.teacher is not None:
            seen = self.teacher(visual=visual, face=face, has_visual=has_visual, has_face=has_face)
            outputs["video_logit"] = seen.video_logit
            if seen.class_logits is not None:
                outputs["class_logits"] = seen.class_logits
            if seen.prompt_logit is not None:
                outputs["prompt_logit"] = seen.prompt_logit
        return outputs


class SentimentTask:
    """Sentiment regression from words, distilled from video (VideoAdviser, arXiv:2309.15494)."""

    def __init__(self, config: Config, sources: Sources) -> None:
        self._config = config
        if sources.label.is_class:
            raise UserError(
                f"{sources.datasets[0].root} has classes as labels, and sentiment is a number. Give a data set of "
                "sentiment labels."
            )
        self.scale = label_scale(sources)
        self._constant = sources.train_label("label_median")
        torch.manual_seed(config.run.seed)
        self.student = build_student(config)
        teacher = build_teacher(config, sources) if config.has_teacher else None
        if teacher is not None:
            teacher.freeze_unused(prompt_logit=config.objective.step1)
        self.model: nn.Module = TeacherStudent(self.student, teacher)
        self._start_at_the_labels(sources)
        self.tokenizer = build_tokenizer(config.student.encoder)
        require_fitting(self.student.encoder, self.tokenizer, config.student.encoder, config.data.max_tokens)
        self.collator = Collator(self.tokenizer, config.data.max_tokens, config.needed_features)
        self.weighted_terms = weighted_terms(config)
        self._weights = {name: getattr(config.objective, name) for name in ("alpha", "beta", "gamma", "delta", "psi")}

    def _start_at_the_labels(self, sources: Sources) -> None:
        """Let every logit begin at the mean training label, so that no epoch is spent on getting there."""
        mean = sources.train_label("label_mean")
        for name, module in self.model.named_modules():
            if isinstance(module, nn.Linear) and name in LAST_LAYERS:
                start_in_label_units(module, mean=self.scale.middle if mean is None else mean, unit=self.scale.unit)

    def inputs(self, batch: Batch) -> dict[str, Tensor | None]:
        """See `Task.inputs`."""
        inputs: dict[str, Tensor | None] = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        if self._config.has_teacher:
            inputs |= {
                "visual": batch.visual,
                "face": batch.face,
                "has_visual": batch.has_visual,
                "has_face": batch.has_face,
            }
        return inputs

    def terms(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """See `Task.terms`."""
        objective = self._config.objective
        return loss_terms(
            TeacherStudentOutputs(
                text_logit=outputs["text_logit"],
                video_logit=outputs.get("video_logit"),
                prompt_logit=outputs.get("prompt_logit"),
                class_logits=outputs.get("class_logits"),
            ),
            batch.label,
            valid_B=batch.valid,
            has_video_B=batch.has_video,
            num_rows=batch.num_rows,
            num_video_rows=batch.num_video_rows,
            threshold=self.scale.threshold,
            step1=objective.step1,
            step2=objective.step2,
            detach_targets=objective.detach_targets,
        )

    def weighting(self, device: torch.device) -> Weighting | None:
        """See `Task.weighting`."""
        return build_weighting(self._config.objective, self.weighted_terms, device)

    def collapse(self, weights: Mapping[str, float]) -> dict[str, Any] | None:
        """See `Task.collapse`."""
        found = find_collapse(weights, "text_regression" if self._config.objective.beta > 0 else "video_to_text")
        return None if found is None else found._asdict()

    def total(self, terms: Mapping[str, Tensor], weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """See `Task.total`."""
        if weights is None:
            return weighted_total(terms, self._weights)
        return weighted_total(terms, {TERMS[name]: weights.get(name, 0.0) for name in terms})

    def parameter_groups(self) -> list[ParameterGroup]:
        """See `Task.parameter_groups`: pretrained and new weights, each with and without weight decay."""
        return parameter_groups(
            self.model.named_parameters(),
            self._config.optimizer,
            pretrained=self._config.student.pretrained,
            last_layers={f"{name}.{kind}" for name in LAST_LAYERS for kind in ("weight", "bias")},
            label_unit=self.scale.unit,
        )

    def metrics(self, predictions: Mapping[str, FloatArray], label: FloatArray) -> Metrics:
        """See `Task.metrics`; the teacher is scored on the clips that it saw, whose logits are numbers."""
        metrics: Metrics = {}
        for logit, model in LOGITS.items():
            if logit in predictions:
                seen = ~np.isnan(predictions[logit]) if model != "student" else np.ones(len(label), bool)
                if seen.any():
                    prediction, truth = predictions[logit][seen], label[seen]
                    metrics[model] = self.scale.score(prediction, truth) | spread(prediction, truth, self._constant)
        return metrics

    def remarks(self, metrics: Metrics) -> list[str]:
        """See `Task.remarks`."""
        return remarks(metrics)

    def score(self, metrics: Metrics) -> float:
        """Mean absolute error of the student."""
        return metrics["student"]["mae"]


def label_scale(sources: Sources) -> LabelScale:
    """The range of a run's labels, and the metrics that it defines."""
    return LabelScale(sources.label.low, sources.label.high, sources.label.positive_from)


def student_metrics(scale: LabelScale, prediction: FloatArray, label: FloatArray) -> dict[str, float]:
    """Metrics of a student on other data, as `SentimentTask.metrics` gives them; [R] each, in label units."""
    return scale.score(prediction, label) | spread(prediction, label, None)


def student_remarks(metrics: Mapping[str, float]) -> list[str]:
    """Remarks on what `student_metrics` gave."""
    return remarks({"student": metrics})


def build_student(config: Config) -> TextStudent:
    """Build the text student.

    Raises:
        UserError: the encoder cannot be had, or reads fewer tokens than `data.max_tokens`.
    """
    student = config.student
    encoder = build_encoder(
        student.encoder,
        pretrained=student.pretrained,
        dropout=student.encoder_dropout,
        gradient_checkpointing=student.gradient_checkpointing,
    )
    longest = longest_text(encoder)
    if longest is not None and config.data.max_tokens > longest:
        raise UserError(
            f"data.max_tokens is {config.data.max_tokens}, but {student.encoder} reads at most {longest} tokens. "
            f"Set data.max_tokens to {longest} or less."
        )
    return TextStudent(
        encoder,
        hidden=student.hidden,
        pooling=student.pooling,
        dropout=student.dropout,
        freeze_encoder=student.freeze_encoder,
    )


def build_teacher(config: Config, sources: Sources) -> Teacher:
    """Build the teacher for the features of the data sets.

    Raises:
        UserError: the width cannot be split over the heads, or the prompts' file is damaged.
    """
    teacher = config.teacher
    shapes = {name: spec.shape for name, spec in sources.features.items()}
    width = teacher.width or (shapes["visual"][-1] if "visual" in shapes else 64)
    heads = teacher.heads or max(1, width // 64)
    if width % heads:
        raise UserError(
            f"teacher.width {width} cannot be split over teacher.heads {heads}. Choose heads that divide it."
        )
    visual, face = shapes.get("visual"), shapes.get("face")
    return Teacher(
        visual_shape=None if visual is None else (visual[0], visual[1], visual[2]),
        face_shape=None if face is None else (face[0], face[1]),
        width=width,
        hidden=teacher.hidden,
        heads=heads,
        cct_layers=teacher.cct_layers,
        mit_layers=teacher.mit_layers,
        prompt_layers=teacher.prompt_layers,
        prompt_alpha=teacher.prompt_alpha,
        prompting=teacher.prompting,
        similarity=teacher.similarity,
        num_classes=2,
        prompts=load_prompts(sources.datasets[0]) if teacher.prompting != "none" else None,
        dropout=teacher.dropout,
    )
