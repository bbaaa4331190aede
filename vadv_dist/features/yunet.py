"""The YuNet face detector (OpenCV Zoo, `face_detection_yunet_2021sep.onnx`) through onnxruntime.

The model predicts offsets from fixed anchors ("priors"), decoded as in the zoo's post-processing.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from vadv_dist.errors import UserError, one_line, require_memory
from vadv_dist.features.frames import Image
from vadv_dist.storage import Location, location, on_disk

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Floats = npt.NDArray[np.float32]

# From the published post-processing: sides of the anchors of each feature map, in pixels, and the map's stride.
_ANCHOR_SIDES = ((10, 16, 24), (32, 48), (64, 96), (128, 192, 256))
_STRIDES = (8, 16, 32, 64)
_CENTRE_VARIANCE, _SIZE_VARIANCE = 0.1, 0.2
_OVERLAP = 0.3
# The coarsest stride: images are padded to a multiple of it, so that all maps have the size that the anchors assume.
_CELL = 64


class YuNet:
    """Finds faces in images.

    Args:
        path: the ONNX file.
        min_score: faces with a lower score are ignored.
        longest_side: images are scaled down to this longest side, in pixels, before detection.
    Raises:
        UserError: there is no such file, or it is another model.
    """

    def __init__(self, path: str | Location, *, min_score: float, longest_side: int) -> None:
        self._session = open_session(path, "faces.path")
        names = {output.name for output in self._session.get_outputs()}
        if not {"loc", "conf", "iou"} <= names:
            raise UserError(
                f"{path} has the outputs {', '.join(sorted(names))}, expected loc, conf and iou as in OpenCV Zoo's "
                "face_detection_yunet_2021sep.onnx. Set faces.path to that file."
            )
        self._input = self._session.get_inputs()[0].name
        self.min_score = min_score
        self.longest_side = longest_side

    def detect(self, image: Image) -> Floats:
        """Find the faces of one RGB image [H, W, 3]: left, top, right, bottom in its pixels, [F, 4], best first."""
        height, width = image.shape[:2]
        share = min(1.0, self.longest_side / max(height, width))
        seen = (max(1, round(width * share)), max(1, round(height * share)))
        small = image if share == 1 else np.asarray(Pillow.fromarray(image).resize(seen, Pillow.Resampling.BILINEAR))
        padded = np.zeros((*(-(-side // _CELL) * _CELL for side in seen[::-1]), 3), np.float32)
        padded[: seen[1], : seen[0]] = small[:, :, ::-1]  # the model expects BGR, 0 to 255
        loc, conf, iou = self._session.run(["loc", "conf", "iou"], {self._input: padded.transpose(2, 0, 1)[None]})
        boxes, scores = decode(loc, conf, iou, padded.shape[0], padded.shape[1])
        good = scores >= self.min_score
        boxes = boxes[good]
        kept = suppress(boxes, scores[good], _OVERLAP)
        scale = np.array([width / seen[0], height / seen[1]] * 2, np.float32)
        limits = np.array([width, height] * 2, np.float32)
        return np.clip(boxes[kept] * scale, 0, limits).astype(np.float32)


def decode(loc: Floats, conf: Floats, iou: Floats, height: int, width: int) -> tuple[Floats, Floats]:
    """Decode the model's outputs into boxes [P, 4] (left, top, right, bottom, in pixels) and scores [P].

    Args:
        loc: offsets of each anchor's centre and size, then of five landmarks, [P, 14].
        conf: probabilities of background and face, [P, 2].
        iou: predicted quality of the box, [P, 1].
        height, width: size of the model's input, in pixels.
    """
    anchors = priors(height, width)
    centres = anchors[:, :2] + loc[:, :2] * _CENTRE_VARIANCE * anchors[:, 2:]
    # The published code uses one variance for the width and the other for the height.
    sizes = anchors[:, 2:] * np.exp(loc[:, 2:4] * np.array([_CENTRE_VARIANCE, _SIZE_VARIANCE], np.float32))
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    scores = np.sqrt(np.clip(conf[:, 1], 0, 1) * np.clip(iou[:, 0], 0, 1))
    return boxes.astype(np.float32), scores.astype(np.float32)


@lru_cache(maxsize=16)
def priors(height: int, width: int) -> Floats:
    """Anchors of an input whose sides are multiples of `_CELL`: centre and sides in pixels, map by map, [P, 4]."""
    parts = []
    for sides, stride in zip(_ANCHOR_SIDES, _STRIDES, strict=True):
        rows, columns = height // stride, width // stride
        grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 1, 2)
        centres = np.broadcast_to((grid + 0.5) * stride, (rows * columns, len(sides), 2))
        shapes = np.broadcast_to(np.array(sides, np.float32)[None, :, None], centres.shape)
        parts.append(np.concatenate([centres, shapes], axis=-1).reshape(-1, 4))
    return np.concatenate(parts).astype(np.float32)


def suppress(boxes: Floats, scores: Floats, overlap: float) -> npt.NDArray[np.int64]:
    """Non-maximum suppression: indices of the boxes that remain, best first, at most `overlap` with a better one."""
    order = np.argsort(-scores, kind="stable")
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    kept: list[int] = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        corners = np.maximum(boxes[best, :2], boxes[rest, :2]), np.minimum(boxes[best, 2:], boxes[rest, 2:])
        shared = np.prod(np.clip(corners[1] - corners[0], 0, None), axis=1)
        union = areas[best] + areas[rest] - shared
        order = rest[shared <= overlap * union]
    return np.array(kept, np.int64)


def open_session(path: str | Location, field: str) -> "InferenceSession":
    """Open an ONNX file on the CPU, with one thread per run: runs are in parallel already.

    Args:
        path: the file.
        field: the configuration field, for messages.
    Raises:
        UserError: there is no such file, or onnxruntime cannot run it.
    """
    import onnxruntime

    file = location(path)
    if not file.is_file():
        raise UserError(f"{path} does not exist. Set {field} to an ONNX file.")
    # On a disk it is opened by name, so that external weights next to it are found.
    model = file.read_bytes() if on_disk(file) is None else str(file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base class
        require_memory()
        raise UserError(
            f"{path} is not an ONNX model that onnxruntime runs ({one_line(error)}). Fix {field}."
        ) from None
