"""Sentiment: a text student beside its video teacher, with the five-term objective; labels are numbers or classes."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vadv_dist.config.sections import Config
from vadv_dist.config.student_sections import TextStudentConfig
from vadv_dist.data.collate import MASK, TOKENS, Collator, FeatureField, TextField
from vadv_dist.data.context import separator_of
from vadv_dist.data.schema import Batch
from vadv_dist.data.sources import Sources
from vadv_dist.data.tokens import Tokens
from vadv_dist.errors import UserError
from vadv_dist.evaluation.calibration import Calibration
from vadv_dist.evaluation.conformal import ErrorQuantiles
from vadv_dist.evaluation.description import Output, TaskDescription, Term
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.formats.weights import load_weights, shapes_of
from vadv_dist.inference.export import export_student, load_student
from vadv_dist.inference.manifest import resolve_student
from vadv_dist.inference.model_card import ModelCard
from vadv_dist.models.encoders import build_encoder, build_tokenizer, require_fitting
from vadv_dist.models.heads import without_autocast
from vadv_dist.models.teacher import Teacher
from vadv_dist.models.text_student import TextStudent
from vadv_dist.models.token_limit import longest_text
from vadv_dist.objectives.base import Objective
from vadv_dist.objectives.outputs import Rows, TeacherStudentOutputs
from vadv_dist.objectives.weighting import Weighting
from vadv_dist.storage import Location, copy_of_folder, local_copy
from vadv_dist.tasks.base import (
    FloatArray,
    Metrics,
    Outputs,
    ParameterGroup,
    StudentFacts,
    Terms,
    TrainingStep,
)
from vadv_dist.tasks.label_kinds import LabelKind, NumberLabels, label_kind
from vadv_dist.tasks.model_check import check_text_model, two_rows
from vadv_dist.tasks.objective import build_objective, build_weighting
from vadv_dist.tasks.parameter_groups import adversary_rates, parameter_groups
from vadv_dist.tasks.rivals import Sides
from vadv_dist.tasks.teacher import teacher_of

STUDENT = Output("student", "Student", "text_logit", "student")
VIDEO = Output("video", "Video logit", "video_logit", "teacher’s video logit")
PROMPT = Output("prompt", "Prompt logit", "prompt_logit", "teacher’s prompt logit")

# The model's logit of each output.
LOGITS = {output.name: output.column for output in (STUDENT, VIDEO, PROMPT)}
# Layers whose output is in label units, or a score of each class.
LAST_LAYERS = ("student.out", "teacher.video_head.out", "teacher.prompt_head.out", "objective.distillation.label_head")


class SentimentStep(TrainingStep):
    """Student, teacher and objective as one module.

    Args:
        student: reads the words.
        teacher: watches the video, or None where the student is trained alone.
        objective: compares their outputs with each other and with the label.
        seen_by: the field without which the teacher sees no video; None without a teacher.
        compares: the teacher's and the student's features that an objective that reads features compares.
    """

    def __init__(
        self,
        student: TextStudent,
        teacher: Teacher | None,
        objective: Objective,
        seen_by: str | None,
        compares: tuple[str, str] = ("video", "pooled"),
    ) -> None:
        super().__init__()
        self.student = student
        self.teacher = teacher
        self.objective = objective
        self._seen_by = seen_by
        self._teacher_features, self._student_features = compares

    def forward(self, batch: Batch, *, with_terms: bool = True) -> tuple[Outputs, Terms]:
        """See `TrainingStep.forward`.

        Returns:
            the logits that exist, class_logits [B, C], and text_logit, video_logit and prompt_logit, [B] or, if labels
            are classes, [B, C]; if the objective reads them, text_features and video_features [B, D]; and the
            objective's terms.
        """
        fields, present = batch.fields, batch.present
        read = self.student.read(fields[TOKENS], fields[MASK])
        outputs = {"text_logit": read.text_logit}
        if self.teacher is not None:
            seen = self.teacher(
                visual=fields.get("visual"),
                face=fields.get("face"),
                audio=fields.get("audio"),
                has_visual=present.get("visual"),
                has_face=present.get("face"),
                has_audio=present.get("audio"),
            )
            outputs["video_logit"] = seen.video_logit
            if seen.class_logits is not None:
                outputs["class_logits"] = seen.class_logits
            if seen.prompt_logit is not None:
                outputs["prompt_logit"] = seen.prompt_logit
            if self.objective.reads_features:
                outputs["text_features"] = read.pooled if self._student_features == "pooled" else read.hidden
                outputs["video_features"] = seen.features(self._teacher_features)
        return outputs, self.terms(outputs, batch) if with_terms else {}

    def terms(self, outputs: Outputs, batch: Batch) -> Terms:
        """Unweighted terms of a batch's outputs."""
        rows = _rows(batch, self._seen_by)
        if self._teacher_features == "face" != self._seen_by:  # a clip with video may have no face
            rows = replace(rows, compared=_rows(batch, "face"))
        # Losses in fp32, whatever the models compute in.
        with without_autocast(batch.label.device):
            terms: Terms = self.objective(TeacherStudentOutputs(**outputs), rows)
        return terms


class SentimentTask:
    """Sentiment from words, distilled from video (VideoAdviser, arXiv:2309.15494): a `Task`.

    Args:
        config: the run's.
        sources: its data sets.
        weights: False leaves the encoder's own weights out, for a model that takes those of a checkpoint, or none.
    """

    def __init__(self, config: Config, sources: Sources, *, weights: bool = True) -> None:
        student = config.text_student
        assert student is not None, "the task's kind requires it"
        if not weights:
            student = replace(student, pretrained=False, init=None)
        self._config, self._sources, self._student = config, sources, student
        self.kind = label_kind(sources)
        self._constant = sources.train_label("label_median")
        torch.manual_seed(config.run.seed)
        self.student = build_student(student, max_tokens=config.data.max_tokens, num_classes=self.kind.num_classes)
        teacher = teacher_of(config, sources) if config.has_teacher else None
        self.weights: Mapping[str, float]
        sides = None if teacher is None else self._sides(teacher)
        objective, self.weights = build_objective(config, self.kind.threshold, sides)
        if teacher is not None:
            teacher.freeze_unused(prompt_logit=any(term.weight == "delta" for term in objective.described))
        self._seen_by = config.needed_features[0] if config.needed_features else None
        self.step: TrainingStep = SentimentStep(
            self.student, teacher, objective, self._seen_by, config.compared_features
        )
        for name, module in self.step.named_modules():
            if isinstance(module, nn.Linear) and name in LAST_LAYERS:
                self.kind.start(module, sources)
        if student.init is not None:
            _load_from(student.init, self.student)
        tokenizer = build_tokenizer(copy_of_folder(student.encoder))
        require_fitting(self.student.encoder, tokenizer, student.encoder, config.data.max_tokens)
        self.tokenizer = tokenizer
        text = TextField(Tokens(tokenizer, config.data.max_tokens), limit=longest_text(self.student.encoder))
        self.collator = Collator([text, *map(FeatureField, config.needed_features)])
        has_prompts = teacher is not None and config.teacher.prompting != "none"
        self.description = describe(self.kind, objective.described, video=teacher is not None, prompt=has_prompts)

    @property
    def labels(self) -> LabelScale | None:
        """See `Task.labels`."""
        return self.kind.scale

    def _sides(self, teacher: Teacher) -> Sides:
        """What a rival objective must know."""
        teacher_features, student_features = self._config.compared_features
        return Sides(
            teacher_width=teacher.feature_width(teacher_features),
            student_width=self.student.width if student_features == "pooled" else self._student.hidden,
            num_rows=self._sources.num_rows("train"),
            seed=self._config.run.seed,
            num_classes=self.kind.num_classes,
            threshold=self.kind.threshold,
        )

    @property
    def in_closed_form(self) -> bool:
        """See `Task.in_closed_form`."""
        return False

    @property
    def begins_with_fit(self) -> bool:
        """See `Task.begins_with_fit`."""
        return False

    def fit(self, batches: Iterable[Batch]) -> None:
        """See `Task.fit`: the student is trained by gradients."""
        raise NotImplementedError

    def absent(self, label: npt.ArrayLike | None = None) -> dict[str, str]:
        """See `Task.absent`."""
        return self.kind.absent(label)

    def predictions(self, outputs: Outputs, batch: Batch) -> Outputs:
        """See `Task.predictions`: the logits, or probabilities; the teacher's are NaN on clips without video."""
        found = {
            output.column: self.kind.prediction(outputs[LOGITS[output.name]]) for output in self.description.outputs
        }
        if self._seen_by is not None:
            unseen = batch.present[self._seen_by] == 0
            student = self.description.student.column
            found |= {n: _without(v, unseen) for n, v in found.items() if n != student}
        return found

    def example(self, rows: int, tokens: int, device: torch.device) -> Batch:
        """See `Task.example`."""
        ones, words = torch.ones(rows, device=device), (rows, tokens)
        fields = {
            name: torch.zeros(rows, *spec.shape, dtype=torch.float16, device=device)
            for name, spec in self._sources.features.items()
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
            counts=dict.fromkeys(("rows", *fields), torch.tensor(rows, device=device)),
            num_tokens=rows * tokens,
        )

    def check(self, device: torch.device) -> None:
        """See `Task.check`."""
        batch = two_rows(self.collator, self._sources)
        check_text_model(self.step, self.student, self.tokenizer, batch, self.weights, self._student, device)

    def weighting(self, device: torch.device) -> Weighting | None:
        """See `Task.weighting`."""
        terms = [term for term in self.description.terms if self.weights[term.name] > 0]
        return build_weighting(self._config.objective, terms, device)

    def parameter_groups(self) -> list[ParameterGroup]:
        """See `Task.parameter_groups`: pretrained and new weights, each with and without weight decay."""
        return parameter_groups(
            self.step.named_parameters(),
            self._config.optimizer,
            pretrained=self._student.pretrained or self._student.init is not None,
            last_layers={f"{name}.{kind}" for name in LAST_LAYERS for kind in ("weight", "bias")},
            label_unit=self.kind.unit,
            own_rates=adversary_rates(self.step),
        )

    def metrics(self, predictions: Mapping[str, FloatArray], label: FloatArray) -> Metrics:
        """See `Task.metrics`; the teacher is scored on the clips that it saw."""
        metrics: Metrics = {}
        for output in self.description.outputs:
            values = predictions[output.column]
            is_student = output is self.description.student
            seen = np.ones(len(label), bool) if is_student else ~np.isnan(values.reshape(len(label), -1)).any(axis=1)
            if seen.any():
                metrics[output.name] = self.kind.score(values[seen], label[seen], self._constant)
        return metrics

    def clip_errors(self, predictions: Mapping[str, FloatArray], label: FloatArray) -> FloatArray:
        """See `Task.clip_errors`: absolute errors in label units, or 1 for a wrong class."""
        return self.kind.errors(predictions[self.description.student.column], label)

    def remarks(self, metrics: Metrics) -> list[str]:
        """See `Task.remarks`: outputs that are constant, or no better than a constant."""
        return self.kind.remarks(metrics, self.description.outputs)

    def guard(self, metrics: Metrics) -> float:
        """See `Task.guard` and `LabelKind.knowledge`."""
        return self.kind.knowledge(metrics.get(VIDEO.name, {}), metrics.get(STUDENT.name, {}))

    def calibration(self, predictions: Mapping[str, FloatArray], label: FloatArray) -> Calibration | None:
        """See `Task.calibration`."""
        if not self._config.is_calibrated:
            return None
        return self.kind.calibration(predictions[self.description.student.column], label)

    def calibrated(self, weights: Mapping[str, Tensor], calibration: Calibration | None) -> Mapping[str, Tensor]:
        """See `Task.calibrated`."""
        if calibration is None or calibration.slope is None or calibration.intercept is None:
            return weights
        weight, bias = weights["student.out.weight"], weights["student.out.bias"]
        slope, intercept = calibration.slope, calibration.intercept
        return {**weights, "student.out.weight": weight * slope, "student.out.bias": bias * slope + intercept}

    def export(self, out: Location, weights: Mapping[str, Tensor], facts: StudentFacts) -> None:
        """See `Task.export`: a text model of transformers."""
        prefix, config = "student.", self._config
        student = build_student(
            replace(self._student, pretrained=False, init=None),
            max_tokens=config.data.max_tokens,
            num_classes=self.kind.num_classes,
        )
        own = {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
        load_weights(student, own, f"The best checkpoint of {facts.name}")
        card = ModelCard(
            name=facts.name,
            encoder=_folder_or_name(self._student.encoder),
            max_tokens=config.data.max_tokens,
            metrics={"valid": facts.metrics},
            data=facts.data,
            config=facts.config,
            labels=self.labels,
            classes=self.kind.classes,
            words=self._sources.label_words(),
            calibration="" if facts.calibration is None else str(facts.calibration),
            context=self._student.context,
            separator=separator_of(self.tokenizer) if self._student.context else "",
            errors=None if facts.predictions is None else errors_of(*facts.predictions, facts.calibration),
        )
        export_student(student, self.tokenizer, out, replace=True, card=card)


def _load_from(place: str, student: TextStudent) -> None:
    """Load the weights of a run's or an export's student."""
    with local_copy(resolve_student(place)) as folder:
        earlier, _, _ = load_student(folder)
    held, expected = shapes_of(earlier.state_dict()), shapes_of(student.state_dict())
    if held != expected:
        name = next(name for name in sorted({*held, *expected}) if held.get(name) != expected.get(name))
        shapes = [list(found[name]) if name in found else "missing" for found in (held, expected)]
        raise UserError(
            f"student.init is {place}, whose student is another model: {name} is {shapes[0]} there and {shapes[1]} "
            "here. Set student.encoder, student.hidden and the classes of the data as in its run, or leave "
            "student.init out."
        )
    student.load_state_dict(earlier.state_dict())


def errors_of(prediction: FloatArray, label: FloatArray, calibration: Calibration | None) -> ErrorQuantiles:
    """Errors of calibrated predictions, from those without."""
    if calibration is not None and calibration.slope is not None and calibration.intercept is not None:
        prediction = np.float32(calibration.slope) * prediction + np.float32(calibration.intercept)
    return ErrorQuantiles.of(np.abs(prediction - label))


def _folder_or_name(encoder: str) -> str:
    """An encoder's folder as an absolute path, which cannot be mistaken for a name on the Hub; or its name."""
    folder = Path(encoder).expanduser()
    return str(folder.resolve()) if folder.is_dir() else encoder


def _rows(batch: Batch, seen_by: str | None) -> Rows:
    """The rows, of which those with the field `seen_by` have video."""
    return Rows(
        label=batch.label,
        valid=batch.valid,
        row_id=batch.row_id,
        has_video=None if seen_by is None else batch.present[seen_by],
        num_rows=batch.counts["rows"],
        num_video_rows=batch.counts["rows" if seen_by is None else seen_by],
    )


def _without(values: Tensor, rows_B: Tensor) -> Tensor:
    """Values [B, ...] with NaN in some rows."""
    return values.masked_fill(rows_B.view(-1, *[1] * (values.ndim - 1)), float("nan"))


def describe(
    labels: LabelKind | LabelScale, terms: tuple[Term, ...] = (), *, video: bool = False, prompt: bool = False
) -> TaskDescription:
    """The task as plain data.

    Args:
        labels: the kind of labels, or the range of labels that are numbers.
        terms: the objective's.
        video, prompt: whether there is a teacher, and whether it has a prompt logit.
    """
    outputs = [STUDENT, *([VIDEO] if video else []), *([PROMPT] if prompt else [])]
    kind = NumberLabels(labels) if isinstance(labels, LabelScale) else labels
    mine = tuple(map(kind.output, outputs))
    return TaskDescription("sentiment", terms, mine, kind.metrics, kind.score_key, kind.classes)


def build_student(
    config: TextStudentConfig | None = None, *, max_tokens: int = 100, num_classes: int | None = None
) -> TextStudent:
    """Build a text student.

    Args:
        config: its section of the configuration; None takes the defaults.
        max_tokens: longest text that it will read, in tokens.
        num_classes: classes that it predicts; None if it predicts one number.
    Raises:
        UserError: the encoder is not found, or reads fewer tokens.
    """
    student = config or TextStudentConfig()
    encoder = build_encoder(
        copy_of_folder(student.encoder),
        pretrained=student.pretrained and student.init is None,
        dropout=student.encoder_dropout,
        gradient_checkpointing=student.gradient_checkpointing,
    )
    longest = longest_text(encoder)
    if longest is not None and max_tokens > longest:
        raise UserError(
            f"data.max_tokens is {max_tokens}, but {student.encoder} reads at most {longest} tokens. "
            f"Set data.max_tokens to {longest} or less."
        )
    return TextStudent(
        encoder,
        hidden=student.hidden,
        pooling=student.pooling,
        dropout=student.dropout,
        freeze_encoder=student.freeze_encoder,
        num_classes=num_classes,
    )
