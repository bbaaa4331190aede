"""Convert a student's weights to a Hugging Face model and back.

The head D → H → 1 with tanh equals the head D → D → 1 of transformers' `…ForSequenceClassification` if the H rows are
padded with zeros to D: a padded unit gives tanh(0) = 0 and has weight 0. This holds for architectures whose head reads
the first token and has tanh between its layers; all others are exported with their own modelling file.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, PreTrainedConfig
from transformers.initialization import no_init_weights

from vadv_dist.formats.weights import load_weights
from vadv_dist.inference.modeling_text_student import (
    TextStudentConfig,
    TextStudentForSequenceClassification,
    encoder_class,
    encoder_options,
)
from vadv_dist.models.text_student import TextStudent

Pooling = Literal["cls", "mean"]

LABEL_NAME = "sentiment"
MODELING_FILE = "modeling_text_student.py"
# transformers' name of the problem.
_CLASSES: Literal["single_label_classification"] = "single_label_classification"


@dataclass(frozen=True)
class StandardHead:
    """The head of an architecture's sequence classifier.

    Args:
        dense: name of the layer D → D.
        out: name of the layer D → 1, or → C for C classes.
        pooler_options: whether the configuration selects the activation between them, so that tanh must be set.
    """

    dense: str
    out: str
    pooler_options: bool = False


_ROBERTA = StandardHead("classifier.dense", "classifier.out_proj")

# According to transformers' modelling files: first token, tanh, no further norm or layer.
STANDARD_HEADS = {
    "bert": StandardHead("bert.pooler.dense", "classifier"),
    "albert": StandardHead("albert.pooler", "classifier"),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "mpnet": _ROBERTA,
    "deberta": StandardHead("pooler.dense", "classifier", pooler_options=True),
    "deberta-v2": StandardHead("pooler.dense", "classifier", pooler_options=True),
}


@dataclass(frozen=True)
class Layout:
    """A student as a Hugging Face model.

    Args:
        config: contents of `config.json`.
        weights: contents of `model.safetensors`: fp32 on the CPU.
        architecture: class that loads it.
        custom_reason: why no standard class fits; None if one does.
    """

    config: PreTrainedConfig
    weights: dict[str, Tensor]
    architecture: str
    custom_reason: str | None


class LogitsStudent(nn.Module):
    """A student with the output of a sequence classifier of transformers: `logits`, [B, 1] or [B, C]."""

    def __init__(self, student: TextStudent) -> None:
        super().__init__()
        self.student = student

    def forward(self, input_ids_BL: Tensor, attention_mask_BL: Tensor) -> Tensor:
        """Predict from token ids and mask, both [B, L]."""
        logit: Tensor = self.student(input_ids_BL, attention_mask_BL)
        return logit.unsqueeze(-1) if logit.ndim == 1 else logit


def to_layout(student: TextStudent, classes: Sequence[str] = ()) -> Layout:
    """Convert a student to a standard sequence classifier, or to its own class if none fits.

    Args:
        student: the student.
        classes: names of the classes that it predicts; none if it predicts one number.
    """
    reason = why_custom(student)
    return _custom(student, classes, reason) if reason else _standard(student, classes)


def why_custom(student: TextStudent) -> str | None:
    """Say why no standard class is equivalent to the student; None if one is."""
    config = student.encoder.config
    if config.model_type not in STANDARD_HEADS:
        return f"transformers has no sequence classifier with a tanh head for {config.model_type!r} encoders"
    if student.pooling != "cls":
        return f"the standard sequence classifiers read the first token, but this student pools by {student.pooling}"
    if student.dense.out_features > config.hidden_size:
        return f"the head's hidden width {student.dense.out_features} exceeds the encoder's width {config.hidden_size}"
    return None


def onnx_config(student: TextStudent, classes: Sequence[str] = ()) -> PreTrainedConfig:
    """The `config.json` beside an ONNX file: sizes of the encoder, and the classes, or the prediction as only label."""
    config = _labelled(copy.deepcopy(student.encoder.config), classes)
    config.name_or_path = ""
    known = type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    name = (
        _sequence_classifier(config).__name__ if known else f"{type(student.encoder).__name__}ForSequenceClassification"
    )
    config.architectures = [name]
    return config


def build_student(
    config: PreTrainedConfig,
    weights: Mapping[str, Tensor],
    *,
    pooling: Pooling,
    hidden: int,
    dropout: float,
    where: object = "The export",
) -> TextStudent:
    """Undo `to_layout`: build the original student of an export, with equal weights.

    Args:
        config: contents of `config.json`.
        weights: contents of `model.safetensors`.
        pooling: `cls` or `mean`.
        hidden: H, the head's hidden width before padding.
        dropout: dropout of the head.
        where: the export, for messages.
    Raises:
        UserError: the encoder's weights are those of another one.
        KeyError, RuntimeError: the head has another layout.
    """
    if isinstance(config, TextStudentConfig):
        dense, out, prefix, encoder_config = "dense", "out", "encoder.", config.encoder_config
    else:
        spec = STANDARD_HEADS[config.model_type]
        dense, out, encoder_config = spec.dense, spec.out, config
        prefix = _sequence_classifier(config).base_model_prefix + "."
    encoder_weights = {
        name.removeprefix(prefix): tensor
        for name, tensor in weights.items()
        if name.startswith(prefix) and not name.startswith(f"{dense}.")
    }
    with no_init_weights():  # initialising weights that are replaced takes seconds in a large encoder
        encoder = encoder_class(encoder_config)(encoder_config, **encoder_options(encoder_config))
    num_classes = config.num_labels if config.problem_type == _CLASSES else None
    student = TextStudent(encoder, hidden=hidden, pooling=pooling, dropout=dropout, num_classes=num_classes)
    load_weights(encoder, encoder_weights, where)
    with torch.no_grad():
        student.dense.weight.copy_(weights[f"{dense}.weight"][:hidden])
        student.dense.bias.copy_(weights[f"{dense}.bias"][:hidden])
        student.out.weight.copy_(weights[f"{out}.weight"][:, :hidden])
        student.out.bias.copy_(weights[f"{out}.bias"])
    return student


def _standard(student: TextStudent, classes: Sequence[str]) -> Layout:
    spec = STANDARD_HEADS[student.encoder.config.model_type]
    config = _labelled(copy.deepcopy(student.encoder.config), classes)
    if spec.pooler_options:
        config.pooler_hidden_act, config.pooler_hidden_size = "tanh", config.hidden_size
    model_class = _sequence_classifier(config)
    config.architectures = [model_class.__name__]
    D, H = config.hidden_size, student.dense.out_features
    weights = {f"{model_class.base_model_prefix}.{name}": t for name, t in fp32_weights(student.encoder).items()}
    dense, out = fp32_weights(student.dense), fp32_weights(student.out)
    weights[f"{spec.dense}.weight"] = torch.cat([dense["weight"], torch.zeros(D - H, D)])
    weights[f"{spec.dense}.bias"] = torch.cat([dense["bias"], torch.zeros(D - H)])
    weights[f"{spec.out}.weight"] = torch.cat([out["weight"], torch.zeros(len(out["weight"]), D - H)], dim=1)
    weights[f"{spec.out}.bias"] = out["bias"]
    return Layout(config, weights, model_class.__name__, custom_reason=None)


def _custom(student: TextStudent, classes: Sequence[str], reason: str) -> Layout:
    encoder_config = copy.deepcopy(student.encoder.config)
    encoder_config.dtype = torch.float32
    encoder_config.name_or_path = ""  # a path on the training machine is useless elsewhere
    model_class = TextStudentForSequenceClassification
    module = MODELING_FILE.removesuffix(".py")
    config = _labelled(
        TextStudentConfig(
            encoder_config=encoder_config,
            pooling=student.pooling,
            head_hidden=student.dense.out_features,
            head_dropout=student.drop.p,
            # A separate model type: with the encoder's, transformers would load a standard class with an untrained
            # head if trust_remote_code is not given, instead of refusing.
            auto_map={
                "AutoConfig": f"{module}.{TextStudentConfig.__name__}",
                "AutoModelForSequenceClassification": f"{module}.{model_class.__name__}",
            },
            architectures=[model_class.__name__],
        ),
        classes,
    )
    weights = {
        f"{part}.{name}": tensor
        for part in ("encoder", "dense", "out")
        for name, tensor in fp32_weights(student.get_submodule(part)).items()
    }
    return Layout(config, weights, model_class.__name__, custom_reason=reason)


def _labelled(config: PreTrainedConfig, classes: Sequence[str]) -> PreTrainedConfig:
    names = classes or (LABEL_NAME,)
    config.num_labels = len(names)
    config.id2label, config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
    # With `regression`, pipelines return the number itself, not its sigmoid.
    config.problem_type = _CLASSES if classes else "regression"
    config.dtype = torch.float32
    return config


def _sequence_classifier(config: PreTrainedConfig) -> Any:
    return MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]


def fp32_weights(module: torch.nn.Module) -> dict[str, Tensor]:
    """A module's tensors on the CPU, floating-point ones in fp32."""
    return {
        name: tensor.detach().to("cpu", torch.float32 if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in module.state_dict().items()
    }
