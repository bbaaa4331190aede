"""The frozen expression encoder, a Hugging Face image classifier or an ONNX file: face crops to scores.

Shape letters: B crops, S side in pixels, E scores.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vadv_dist.config.extract_sections import ExpressionConfig, Precision
from vadv_dist.errors import UserError, one_line, require_memory
from vadv_dist.features.clip_files import file_entry
from vadv_dist.features.encoders import encoder_facts, image_preprocessing, load_frozen, pretrained_config
from vadv_dist.features.pixels import Preprocessing
from vadv_dist.features.yunet import open_session
from vadv_dist.storage import location

_FIELD = "expression.encoder"


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
        self._preprocessing = expression_preprocessing(config)
        name = _name(config)
        self._model: Any = None
        self._session: Any = None
        if _is_onnx(config):
            self._session = open_session(name, _FIELD)
        else:
            _require_classifier(config)
            from transformers import AutoModelForImageClassification

            self._model = load_frozen(AutoModelForImageClassification, name, _FIELD, device, precision)

    @torch.inference_mode()
    def encode(self, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Score face crops [B, S, S, 3], already resized, as [B, E]."""
        if self._session is not None:
            names = self._session.get_inputs()[0].name, self._session.get_outputs()[0].name
            [logits] = self._session.run([names[1]], {names[0]: self._preprocessing.normalised(crops).numpy()})
            if logits.shape != (len(crops), self._config.num_scores):
                raise UserError(
                    f"{_FIELD} {_name(self._config)} gives scores {list(logits.shape)} for {len(crops)} faces, "
                    f"expected [{len(crops)}, {self._config.num_scores}]. Set expression.num_scores, or use another."
                )
            scores = torch.from_numpy(np.asarray(logits, np.float32))
        else:
            pixels = self._preprocessing.normalised(crops, self._model.device)
            scores = self._model(pixel_values=pixels.to(self._model.dtype)).logits.float().cpu()
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


def check_expression(config: ExpressionConfig) -> dict[str, Any]:
    """Check the configuration before anything is started, and describe the encoder as `encoder_facts` does.

    Raises:
        UserError: as in `ExpressionEncoder`.
    """
    if not _is_onnx(config):
        _require_classifier(config)
        return encoder_facts(_name(config), _FIELD)
    path = location(_name(config))
    session = open_session(path, _FIELD)
    num_inputs, outputs = len(session.get_inputs()), [list(output.shape) for output in session.get_outputs()]
    shape = outputs[0]
    if num_inputs != 1 or len(shape) != 2 or not (shape[1] in (config.num_scores, None) or isinstance(shape[1], str)):
        raise UserError(
            f"{_FIELD} {path} takes {num_inputs} inputs and gives {outputs}, expected one image and "
            f"[B, {config.num_scores}] scores. Set expression.num_scores, or use another."
        )
    _try_onnx(session, config)
    return {"name": path.name, "kind": "onnx", "revision": None, "files": [file_entry(path)]}


def _try_onnx(session: Any, config: ExpressionConfig) -> None:
    """Score two images like the extraction: channels first, more than one at a time."""
    images = np.random.default_rng(0).integers(0, 256, (2, config.onnx_side, config.onnx_side, 3)).astype(np.uint8)
    pixels = expression_preprocessing(config).normalised(images).numpy()
    try:
        scores = np.asarray(session.run(None, {session.get_inputs()[0].name: pixels})[0], np.float64)
    except Exception as error:  # onnxruntime's exceptions have no common base class
        require_memory()
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
    from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING

    found = pretrained_config(_name(config), _FIELD)
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
