"""Sentiment: a text student beside its video teacher, the five-term objective, regression metrics."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vadv_dist.config.sections import Config
from vadv_dist.data.collate import MASK, TOKENS, Collator, FeatureField, TextField
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
from vadv_dist.objectives.outputs import Rows, TeacherStudentOutputs
from vadv_dist.objectives.step_distillation import TERMS, StepDistillation, weighted_total
from vadv_dist.objectives.weighting import Weighting
from vadv_dist.tasks.base import FloatArray, Metrics, Outputs, ParameterGroup, Terms, TrainingStep
from vadv_dist.tasks.parameter_groups import parameter_groups
from vadv_dist.tasks.weighting import build_weighting, weighted_terms

# Names of the logits in predictions, and of the model whose metrics they give.
LOGITS = {"text_logit": "student", "video_logit": "video", "prompt_logit": "prompt"}

# Layers whose output is in label units.
LAST_LAYERS = ("student.out", "teacher.video_head.out", "teacher.prompt_head.out")


class SentimentStep(TrainingStep):
    """Student, teacher and objective as one module.

    Args:
        student: reads the words.
        teacher: watches the video, or None where the student is trained alone.
        objective: compares their outputs with each other and with the label.
        seen_by: the field without which the teacher sees no video; None without a teacher.
    """

    def __init__(
        self, student: TextStudent, teacher: Teacher | None, objective: StepDistillation, seen_by: str | None
    ) -> None:
        super().__init__()
        self.student = student
        self.teacher = teacher
        self.objective = objective
        self._seen_by = seen_by

    def forward(self, batch: Batch, *, with_terms: bool = True) -> tuple[Outputs, Terms]:
        """See `TrainingStep.forward`.

        Returns:
            the logits that exist, text_logit [B], video_logit [B], class_logits [B, C] and prompt_logit [B]; and the
            terms of `StepDistillation`.
        """
        fields, present = batch.fields, batch.present
        outputs = {"text_logit": self.student(fields[TOKENS], fields[MASK])}
        if self.teacher is not None:
            seen = self.teacher(
                visual=fields.get("visual"),
                face=fields.get("face"),
                has_visual=present.get("visual"),
                has_face=present.get("face"),
            )
            outputs["video_logit"] = seen.video_logit
            if seen.class_logits is not None:
                outputs["class_logits"] = seen.class_logits
            if seen.prompt_logit is not None:
                outputs["prompt_logit"] = seen.prompt_logit
        return outputs, self.terms(outputs, batch) if with_terms else {}

    def terms(self, outputs: Outputs, batch: Batch) -> Terms:
        """Unweighted terms of a batch's outputs."""
        seen_by = self._seen_by
        rows = Rows(
            label=batch.label,
            valid=batch.valid,
            row_id=batch.row_id,
            has_video=None if seen_by is None else batch.present[seen_by],
            num_rows=batch.counts["rows"],
            num_video_rows=batch.counts["rows" if seen_by is None else seen_by],
        )
        # Losses in fp32, whatever the models compute in.
        with torch.autocast(batch.label.device.type, enabled=False):
            terms: Terms = self.objective(TeacherStudentOutputs(**outputs), rows)
        return terms


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
        objective = config.objective
        self._seen_by = config.needed_features[0] if config.needed_features else None
        self.step: TrainingStep = SentimentStep(
            self.student,
            teacher,
            StepDistillation(
                threshold=self.scale.threshold,
                step1=objective.step1,
                step2=objective.step2,
                detach_targets=objective.detach_targets,
            ),
            self._seen_by,
        )
        self._start_at_the_labels(sources)
        self.tokenizer = build_tokenizer(config.student.encoder)
        require_fitting(self.student.encoder, self.tokenizer, config.student.encoder, config.data.max_tokens)
        text = TextField(self.tokenizer, config.data.max_tokens)
        self.collator = Collator([text, *map(FeatureField, config.needed_features)])
        self._features = sources.features
        self.weighted_terms = weighted_terms(config)
        self._weights = {name: getattr(config.objective, name) for name in ("alpha", "beta", "gamma", "delta", "psi")}

    def _start_at_the_labels(self, sources: Sources) -> None:
        """Let every logit begin at the mean training label, so that no epoch is spent on getting there."""
        mean = sources.train_label("label_mean")
        for name, module in self.step.named_modules():
            if isinstance(module, nn.Linear) and name in LAST_LAYERS:
                start_in_label_units(module, mean=self.scale.middle if mean is None else mean, unit=self.scale.unit)

    def predictions(self, outputs: Outputs, batch: Batch) -> Outputs:
        """See `Task.predictions`: the logits; the teacher's are NaN on clips without video."""
        found = {name: outputs[name].float() for name in LOGITS if name in outputs}
        if self._seen_by is not None:
            unseen = batch.present[self._seen_by] == 0
            found |= {n: v.masked_fill(unseen, float("nan")) for n, v in found.items() if n != "text_logit"}
        return found

    def example(self, rows: int, tokens: int, device: torch.device) -> Batch:
        """See `Task.example`."""
        ones, words = torch.ones(rows, device=device), (rows, tokens)
        fields = {
            name: torch.zeros(rows, *spec.shape, dtype=torch.float16, device=device)
            for name, spec in self._features.items()
        }
        return Batch(
            fields={
                TOKENS: torch.zeros(words, dtype=torch.long, device=device),
                MASK: torch.ones(words, dtype=torch.long, device=device),
                **fields,
            },
            present=dict.fromkeys(fields, ones),
            label=torch.zeros(rows, device=device),
            valid=ones,
            row_id=torch.arange(rows, device=device),
            counts=dict.fromkeys(("rows", *fields), rows),
            num_tokens=rows * tokens,
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
            self.step.named_parameters(),
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
