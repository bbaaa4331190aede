"""The frozen expression encoder, a Hugging Face image classifier or an ONNX file: face crops to scores.

Shape letters: B crops, S side in pixels, E scores.
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from vadv_dist.config.extract_sections import ExpressionConfig, Precision
from vadv_dist.errors import UserError, one_line
from vadv_dist.features.encoders import (
    EncoderFacts,
    _tensor,
    encoder_facts,
    image_preprocessing,
    load_frozen,
)
from vadv_dist.features.pixels import Preprocessing
from vadv_dist.features.yunet import open_session
from vadv_dist.models.pretrained import load_pretrained
from vadv_dist.storage import file_size, location, sha256_file

_FIELD = "expression.encoder"
Scores = Literal["probabilities", "raw"]


class ExpressionEncoder:
    """Scores face crops by expression with frozen weights.

    Args:
        config: the encoder and its expected output.
        device: device of a Hugging Face classifier; an ONNX file runs on the CPU.
        precision: precision of a Hugging Face classifier.
    Raises:
        UserError: it cannot be loaded, is not a classifier, or has another number of scores.
    """

    def __init__(
        self, config: ExpressionConfig, *, device: torch.device | None = None, precision: Precision = "fp32"
    ) -> None:
        self._config = config
        self._device = device or torch.device("cpu")
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._preprocessing = expression_preprocessing(config)
        name = _name(config)
        self._model: Any = None
        self._session: Any = None
        if _is_onnx(config):
            self._session = open_session(name, _FIELD, threads=1)
        else:
            _require_classifier(config)
            from transformers import AutoModelForImageClassification

            loaded = load_frozen(AutoModelForImageClassification, name, _FIELD, self._dtype)
            self._model = loaded.to(self._device)

    @torch.inference_mode()
    def encode(self, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Score face crops [B, S, S, 3], already resized, as [B, E]."""
        if self._session is not None:
            names = self._session.get_inputs()[0].name, self._session.get_outputs()[0].name
            [logits] = self._session.run([names[1]], {names[0]: self._preprocessing.normalised_array(crops)})
            if logits.shape != (len(crops), self._config.num_scores):
                raise UserError(
                    f"{_FIELD} {_name(self._config)} gives scores {list(logits.shape)} for {len(crops)} faces, "
                    f"expected [{len(crops)}, {self._config.num_scores}]. Set expression.num_scores, or use another."
                )
            scores = torch.from_numpy(np.asarray(logits, np.float32))
        else:
            pixels = self._preprocessing.normalised(_tensor(crops, self._device)).to(self._dtype)
            scores = self._model(pixel_values=pixels).logits.float().cpu()
        if self._config.scores == "probabilities":
            scores = scores.softmax(dim=-1)
        return np.asarray(scores.numpy(), np.float32)


def expression_preprocessing(config: ExpressionConfig) -> Preprocessing:
    """The preprocessing of a face crop.

    Raises:
        UserError: it has no image processor, or one of an unsupported kind.
    """
    if _is_onnx(config):
        return Preprocessing.square(config.onnx_side, config.onnx_mean, config.onnx_std)
    return image_preprocessing(_name(config), _FIELD)


def check_expression(config: ExpressionConfig) -> EncoderFacts:
    """Check the configuration before anything is started, and list the files of the encoder.

    Raises:
        UserError: as in `ExpressionEncoder`.
    """
    if not _is_onnx(config):
        _require_classifier(config)
        return encoder_facts(_name(config), _FIELD)
    path = location(_name(config))
    session = open_session(path, _FIELD, threads=1)
    outputs = [list(output.shape) for output in session.get_outputs()]
    if len(session.get_inputs()) != 1 or len(outputs[0]) != 2 or outputs[0][1] not in (config.num_scores, None):
        is_symbol = len(outputs[0]) == 2 and isinstance(outputs[0][1], str)
        if not is_symbol:
            raise UserError(
                f"{_FIELD} {path} takes {len(session.get_inputs())} inputs and gives {outputs}, expected one image and "
                f"[B, {config.num_scores}] scores. Set expression.num_scores, or use another."
            )
    _try_onnx(session, config)
    facts = {"name": path.name, "bytes": file_size(path), "sha256": sha256_file(path)}
    return EncoderFacts(path.name, "onnx", None, [facts])


def _try_onnx(session: Any, config: ExpressionConfig) -> None:
    """Score two images like the extraction: channels first, more than one at a time."""
    images = np.random.default_rng(0).integers(0, 256, (2, config.onnx_side, config.onnx_side, 3)).astype(np.uint8)
    pixels = expression_preprocessing(config).normalised_array(images)
    try:
        scores = np.asarray(session.run(None, {session.get_inputs()[0].name: pixels})[0], np.float64)
    except Exception as error:  # onnxruntime's exceptions have no common base class
        raise UserError(
            f"{_FIELD} {_name(config)} does not take images {list(pixels.shape)} ({one_line(error)}). Set "
            "expression.onnx_side to its side, or export it with inputs [batch, 3, side, side]."
        ) from None
    if not np.isfinite(scores).all():
        raise UserError(f"{_FIELD} {_name(config)} gives scores of NaN or infinity. Use another.")
    are_shares = (scores >= 0).all() and np.allclose(scores.reshape(2, -1).sum(axis=1), 1, atol=1e-4)
    if are_shares and config.scores == "probabilities" and config.num_scores > 1:
        raise UserError(
            f"{_FIELD} {_name(config)} already returns probabilities, and expression.scores: probabilities would apply "
            "a softmax to them. Set expression.scores: raw."
        )


def _require_classifier(config: ExpressionConfig) -> None:
    from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, AutoConfig

    found: Any = load_pretrained(
        _name(config),
        lambda source, local: AutoConfig.from_pretrained(source, local_files_only=local, trust_remote_code=False),
        field=_FIELD,
    )
    if type(found) not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        raise UserError(
            f"{_FIELD} {_name(config)!r} is a {found.model_type!r}, expected an image classifier or an .onnx file."
        )
    if found.num_labels != config.num_scores:
        raise UserError(
            f"{_FIELD} {_name(config)!r} gives {found.num_labels} scores, but expression.num_scores is "
            f"{config.num_scores}. Make them agree."
        )
    if found.problem_type == "multi_label_classification" and config.scores == "probabilities":
        raise UserError(
            f"{_FIELD} {_name(config)!r} was trained with labels that do not exclude each other, so a softmax over its "
            "outputs is not a probability. Set expression.scores: raw."
        )


def _is_onnx(config: ExpressionConfig) -> bool:
    return _name(config).endswith(".onnx")


def _name(config: ExpressionConfig) -> str:
    assert config.encoder is not None  # ExtractConfig requires one for faces
    return config.encoder
