"""Audio-visual retrieval: a student that embeds both modalities, beside its video teacher; mean average precision.

Shape letters: B batch, R clips, T frames, N tokens per frame, D width of visual features, E embedding width, C classes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vadv_dist.config.sections import Config
from vadv_dist.data.classes import class_names
from vadv_dist.data.collate import Collator, FeatureField
from vadv_dist.data.schema import Batch
from vadv_dist.data.sources import Sources
from vadv_dist.errors import UserError
from vadv_dist.evaluation import retrieval
from vadv_dist.evaluation.calibration import Calibration
from vadv_dist.evaluation.classification import ACCURACY
from vadv_dist.evaluation.description import Output, TaskDescription, Term
from vadv_dist.formats.weights import load_weights
from vadv_dist.inference.retrieval_card import RetrievalCard
from vadv_dist.inference.retrieval_export import export_pair
from vadv_dist.inference.towers import towers_of
from vadv_dist.models.heads import without_autocast
from vadv_dist.models.teacher import Teacher
from vadv_dist.objectives.base import Objective, weighted_total
from vadv_dist.objectives.outputs import RetrievalOutputs, Rows
from vadv_dist.objectives.weighting import Weighting
from vadv_dist.storage import Location
from vadv_dist.students.base import RetrievalStudent
from vadv_dist.tasks.base import FloatArray, Metrics, Outputs, ParameterGroup, StudentFacts, Terms, TrainingStep
from vadv_dist.tasks.objective import build_retrieval_objective, build_weighting
from vadv_dist.tasks.parameter_groups import adversary_rates, parameter_groups
from vadv_dist.tasks.rivals import Sides
from vadv_dist.tasks.students import build_retrieval_student
from vadv_dist.tasks.teacher import teacher_of

MODALITIES = ("audio", "visual")
STUDENT = Output("student", "Student", "embeddings", "student", "embeddings")
VIDEO = Output("video", "Video logit", "video_logit", "teacher’s video logit", "scores")
PROMPT = Output("prompt", "Prompt logit", "prompt_logit", "teacher’s prompt logit", "scores")
LOGITS = tuple(f"{modality}_logit" for modality in MODALITIES)


class RetrievalStep(TrainingStep):
    """Student, teacher and objective as one module.

    The student computes in fp32, whatever the teacher computes in.

    Args:
        student: embeds audio and visual vectors, with losses of its own.
        teacher: watches the frames, or None where the student is trained alone.
        objective: what the teacher adds to the student's losses; None without a teacher.
        needed: fields without which a clip is not trained on.
        teacher_features: the teacher's features that the objective compares.
    """

    keeps_fp32_weights = True

    def __init__(
        self,
        student: RetrievalStudent,
        teacher: Teacher | None,
        objective: Objective | None,
        needed: tuple[str, ...],
        teacher_features: str = "video",
    ) -> None:
        super().__init__()
        self.student = student
        self.teacher = teacher
        self.objective = objective
        self._needed = needed
        self._teacher_features = teacher_features

    def forward(self, batch: Batch, *, with_terms: bool = True) -> tuple[Outputs, Terms]:
        """See `TrainingStep.forward`.

        Returns:
            audio_embedding and visual_embedding [B, E], and the logits that exist: audio_logit, visual_logit,
            video_logit, class_logits and prompt_logit [B, C]; and the terms of student and objective.
        """
        fields, present = batch.fields, batch.present
        with without_autocast(batch.label.device):
            pair = self.student(vectors(fields["audio"]), vectors(fields["visual"]))
        seen = None
        if self.teacher is not None:
            seen = self.teacher(
                visual=fields["visual"] if self.teacher.visual_branch is not None else None,
                face=fields.get("face"),
                audio=fields["audio"] if self.teacher.audio_branch is not None else None,
                has_visual=present["visual"],
                has_face=present.get("face"),
                has_audio=present["audio"],
            )
        outputs = {name: value for name, value in pair._asdict().items() if isinstance(value, Tensor)}
        if seen is not None:
            logits = {name: getattr(seen, name) for name in ("video_logit", "class_logits", "prompt_logit")}
            outputs |= {name: value for name, value in logits.items() if value is not None}
        if not with_terms:
            return outputs, {}
        rows = self._rows(batch)
        # Losses in fp32, whatever the models compute in.
        with without_autocast(batch.label.device):
            terms = self.student.terms(pair, rows)
            if seen is not None and self.objective is not None:
                features = seen.features(self._teacher_features)
                taught = RetrievalOutputs(pair, seen.video_logit, features, seen.prompt_logit, seen.class_logits)
                terms = {**terms, **self.objective(taught, rows)}
        return outputs, terms

    def _rows(self, batch: Batch) -> Rows:
        """The rows, of which those with every needed feature count."""
        valid = batch.valid
        for name in self._needed:
            valid = valid * batch.present[name]
        complete = batch.counts["complete"]
        return Rows(batch.label, valid, batch.row_id, None, complete, complete)


class RetrievalTask:
    """Retrieval between audio and video, distilled from video (VideoAdviser, arXiv:2309.15494): a `Task`.

    Args:
        config: the run's.
        sources: its data sets.
    """

    labels = None
    tokenizer = None

    def __init__(self, config: Config, sources: Sources) -> None:
        self._config, self._sources, self._num_classes = config, sources, sources.label.num_classes
        torch.manual_seed(config.run.seed)
        self._widths = {name: sources.features[name].shape[-1] for name in MODALITIES}
        self.student = self._new_student()
        teacher = teacher_of(config, sources) if config.has_teacher else None
        sides = {} if teacher is None else self._sides(teacher)
        objective, self.weights = build_retrieval_objective(config, self.student, sides)
        described: tuple[Term, ...] = self.student.described
        if objective is not None:
            described += objective.described
        if teacher is not None:
            teacher.freeze_unused(prompt_logit=any(term.weight == "delta" for term in described))
        self._teaches = teacher is not None
        self.step: TrainingStep = RetrievalStep(
            self.student, teacher, objective, config.needed_features, config.compared_features[0]
        )
        self.collator = Collator([FeatureField(name) for name in config.needed_features])
        self.description = describe(
            described,
            video=self._teaches,
            prompt=self._teaches and config.teacher.prompting != "none",
            classes=class_names(sources.label.classes, self._num_classes),
        )

    def _sides(self, teacher: Teacher) -> dict[str, Sides]:
        """What a rival objective must know, by modality; empty for a student that no teacher can be distilled onto."""
        if self.student.in_closed_form:
            return {}
        self.student.eval()
        with torch.no_grad():
            pair = self.student(*(torch.zeros(1, self._widths[name]) for name in MODALITIES))
        self.student.train()
        teacher_features, student_features = self._config.compared_features
        return {
            modality: Sides(
                teacher_width=teacher.feature_width(teacher_features),
                student_width=view.features.shape[1],
                num_rows=self._sources.num_rows("train"),
                seed=self._config.run.seed,
                num_classes=self._num_classes,
                student_has_scores=view.logit is not None,
            )
            for modality, view in pair.views(hidden=student_features == "hidden").items()
        }

    @property
    def in_closed_form(self) -> bool:
        """See `Task.in_closed_form`."""
        return self.student.in_closed_form

    @property
    def begins_with_fit(self) -> bool:
        """See `Task.begins_with_fit`."""
        return self.student.in_closed_form or self.student.begins_with_fit

    def fit(self, batches: Iterable[Batch]) -> None:
        """See `Task.fit`."""
        self.student.fit(_Complete(batches))

    def absent(self, label: npt.ArrayLike | None = None) -> dict[str, str]:
        """See `Task.absent`."""
        return {}

    def predictions(self, outputs: Outputs, batch: Batch) -> Outputs:
        """See `Task.predictions`: embeddings [B, 2, E] of audio and visual, and the logits that exist, [B, C]."""
        sides = [_seen(outputs[f"{name}_embedding"], batch, name) for name in MODALITIES]
        found = {STUDENT.column: torch.stack(sides, dim=1)}
        for name in LOGITS:
            if name in outputs:
                found[name] = _seen(outputs[name], batch, name.removesuffix("_logit"))
        for output in self.description.outputs[1:]:
            found[output.column] = _seen(outputs[output.column], batch, "visual")
        return found

    def example(self, rows: int, tokens: int, device: torch.device) -> Batch:
        """See `Task.example`."""
        ones = torch.ones(rows, device=device)
        fields = {
            name: torch.zeros(rows, *spec.shape, dtype=torch.float16, device=device)
            for name, spec in self._sources.features.items()
        }
        return Batch(
            fields=fields,
            present=dict.fromkeys(fields, ones),
            label=torch.zeros(rows, device=device),
            valid=ones,
            row_id=torch.arange(rows, device=device),
            counts=dict.fromkeys(("rows", "complete", *fields), torch.tensor(rows, device=device)),
        )

    def check(self, device: torch.device) -> None:
        """See `Task.check`: every trained parameter gets a gradient, which data-parallel training waits for."""
        if self.in_closed_form:
            return
        random = torch.Generator().manual_seed(0)
        batch = self.example(4, 0, torch.device("cpu"))
        fields = {name: torch.randn(value.shape, generator=random) for name, value in batch.fields.items()}
        label = torch.tensor([0.0, 0.0, 1.0, 1.0])
        batch = Batch(fields, batch.present, label, batch.valid, batch.row_id, batch.counts).to(device)
        home = next(self.step.parameters()).device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            _, terms = self.step.to(device).eval()(batch)
            trained = {n: p for n, p in self.step.named_parameters() if p.requires_grad}
            found = torch.autograd.grad(weighted_total(terms, self.weights), list(trained.values()), allow_unused=True)
        self.step.to(home).train()
        unused = [name for name, gradient in zip(trained, found, strict=True) if gradient is None]
        if unused:
            raise UserError(
                f"{len(unused)} of {len(trained)} trained parameters have no influence on the loss, so they would have "
                f"no gradient: {', '.join(unused[:5])}. Give another student.kind or objective."
            )

    def weighting(self, device: torch.device) -> Weighting | None:
        """See `Task.weighting`."""
        terms = [term for term in self.description.terms if self.weights[term.name] > 0]
        return build_weighting(self._config.objective, terms, device)

    def parameter_groups(self) -> list[ParameterGroup]:
        """See `Task.parameter_groups`: all weights are new."""
        own = adversary_rates(self.step)
        return parameter_groups(self.step.named_parameters(), self._config.optimizer, pretrained=False, own_rates=own)

    def metrics(self, predictions: Mapping[str, FloatArray], label: FloatArray) -> Metrics:
        """See `Task.metrics`: mAP of the student's embeddings, and the accuracy of every output with class scores."""
        student = retrieval.score(predictions[STUDENT.column], label)
        own = [accuracy(predictions[name], label) for name in LOGITS if name in predictions]
        if own:
            student[ACCURACY.key] = float(np.mean(own))
        teacher = {
            output.name: {ACCURACY.key: accuracy(predictions[output.column], label)}
            for output in self.description.outputs[1:]
        }
        return {STUDENT.name: student, **teacher}

    def clip_errors(self, predictions: Mapping[str, FloatArray], label: FloatArray) -> FloatArray:
        """See `Task.clip_errors`: one minus the mean of a clip's two average precisions."""
        found = retrieval.precision_of_clips(predictions[STUDENT.column], label)
        errors: FloatArray = 1.0 - np.mean(list(found.values()), axis=0)
        return errors

    def remarks(self, metrics: Metrics) -> list[str]:
        """See `Task.remarks`."""
        return []

    def guard(self, metrics: Metrics) -> float:
        """See `Task.guard`: the teacher classifies and the student ranks, so there is none."""
        return 1.0

    def calibration(self, predictions: Mapping[str, FloatArray], label: FloatArray) -> Calibration | None:
        """See `Task.calibration`: ranks need none."""
        return None

    def calibrated(self, weights: Mapping[str, Tensor], calibration: Calibration | None) -> Mapping[str, Tensor]:
        """See `Task.calibrated`."""
        return weights

    def export(self, out: Location, weights: Mapping[str, Tensor], facts: StudentFacts) -> None:
        """See `Task.export`."""
        prefix, config = "student.", self._config
        student = self._new_student()
        own = {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
        load_weights(student, own, f"The best checkpoint of {facts.name}")
        card = RetrievalCard(
            name=facts.name,
            student=config.student.kind,
            title=config.student.title,
            taught=self._teaches,
            classes=self._num_classes,
            metrics={"valid": facts.metrics},
            data=facts.data,
            config=facts.config,
        )
        export_pair(towers_of(student.float().eval(), self._widths), self._widths, out, card=card, replace=True)

    def _new_student(self) -> RetrievalStudent:
        audio, visual = (self._widths[name] for name in MODALITIES)
        return build_retrieval_student(self._config.student, audio, visual, self._num_classes)


def describe(
    terms: tuple[Term, ...] = (), *, video: bool = False, prompt: bool = False, classes: Sequence[str] = ()
) -> TaskDescription:
    """The task as plain data.

    Args:
        terms: those of the student and the objective.
        video, prompt: whether there is a teacher, and whether it has a prompt logit.
        classes: names of the classes, in the order of their numbers.
    """
    outputs = (STUDENT, *([VIDEO] if video else []), *([PROMPT] if prompt else []))
    metrics = (*retrieval.METRICS, ACCURACY)
    return TaskDescription("retrieval", terms, outputs, metrics, "map", tuple(classes))


def vectors(values: Tensor) -> Tensor:
    """One vector per clip, [B, D], from audio [B, D] or [B, T, D] or visual features [B, T, N, D]: the mean in fp32."""
    values = values.float()
    return values if values.ndim == 2 else values.flatten(1, -2).mean(dim=1)


def accuracy(scores_RC: FloatArray, label: FloatArray) -> float:
    """Share of clips whose highest score is that of their class, of those with scores; NaN if there are none."""
    known = ~np.isnan(scores_RC).any(axis=1)
    return float((scores_RC[known].argmax(axis=1) == label[known]).mean()) if known.any() else float("nan")


def _seen(values: Tensor, batch: Batch, name: str) -> Tensor:
    """Values [B, ...] in fp32, NaN on clips that lack a feature."""
    return values.float().masked_fill(batch.present[name][:, None] == 0, float("nan"))


class _Complete:
    """(audio, visual, class) of the clips with both modalities, read as often as it is iterated over."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for batch in self._batches:
            has = (batch.valid * batch.present["audio"] * batch.present["visual"]).bool()
            audio, visual = (vectors(batch.fields[name])[has] for name in MODALITIES)
            yield audio, visual, batch.label[has].long()
