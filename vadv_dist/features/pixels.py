"""Preprocess images for an encoder according to its `preprocessor_config.json`.

Images are resized and cropped as bytes where they are decoded, and normalised where they are encoded, because bytes
take a quarter of the space. The results match Hugging Face's image processors with Pillow.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from vadv_dist.errors import UserError
from vadv_dist.features.frames import Image

if TYPE_CHECKING:
    import torch

_RESCALE = 1 / 255

# Supported keys of a processor's configuration …
_GEOMETRY = {"do_resize", "size", "resample", "do_center_crop", "crop_size"}
_COLOURS = {"do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"}
# … and keys that do not affect an RGB image. Any other key is refused unless it is off.
_CLASSES = {"image_processor_type", "feature_extractor_type", "processor_class", "use_fast", "_valid_processor_keys"}
_FORMATS = {"do_convert_rgb", "data_format", "input_data_format", "return_tensors", "device", "disable_grouping"}
_OTHERS = {"model_input_names", "default_to_square", "do_reduce_labels", "image_seq_length"}
_KNOWN = _GEOMETRY | _COLOURS | _CLASSES | _FORMATS | _OTHERS
# In levels of 256: fp32 may differ by this much, while another filter or crop differs by whole levels.
_TOLERANCE = 0.05


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of an image.

    Attributes:
        height, width: size of the encoder's input, in pixels.
        shortest_edge: the image is scaled so that its shorter side has this many pixels, then its centre is cropped;
            None scales both sides to height and width, ignoring the aspect ratio.
        resample: Pillow's number of the filter.
        scale, mean, std: a pixel becomes (pixel * scale - mean) / std, per channel.
    """

    height: int
    width: int
    shortest_edge: int | None
    resample: int
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def of_processor(cls, processor: Any, name: str) -> "Preprocessing":
        """Read a Hugging Face image processor.

        Args:
            processor: result of `AutoImageProcessor`.
            name: name of the encoder, for messages.
        Raises:
            UserError: it does something unsupported.
        """
        raw = processor.to_dict()
        kind = type(processor).__name__
        unknown = {k: v for k, v in raw.items() if k not in _KNOWN and v not in (None, False)}
        if unknown:
            keys = ", ".join(f"{key} ({value!r})" for key, value in sorted(unknown.items()))
            raise UserError(
                f"The image processor of {name!r} ({kind}) uses unsupported options: {keys}. Its pixels would differ "
                "from those that the encoder was trained on. Use another encoder."
            )
        size, crop = dict(raw.get("size") or {}), dict(raw.get("crop_size") or {})
        crops = bool(raw.get("do_center_crop"))
        target = crop if crops else size
        known_size = size.keys() in ({"height", "width"}, {"shortest_edge"})
        if not raw.get("do_resize") or not known_size or target.keys() != {"height", "width"}:
            raise UserError(
                f"The image processor of {name!r} ({kind}, do_resize {bool(raw.get('do_resize'))}, size {size}, crop "
                f"{crop if crops else None}) is not supported. Expected a resize to a fixed height and width, or to a "
                "shortest edge with a centre crop. Use another encoder."
            )
        shortest = size.get("shortest_edge")
        if shortest is None and crops and crop != size:
            raise UserError(f"The image processor of {name!r} resizes to {size} but crops {crop}: expected the same.")
        normalises = bool(raw.get("do_normalize"))
        ours = cls(
            height=int(target["height"]),
            width=int(target["width"]),
            shortest_edge=None if shortest is None else int(shortest),
            resample=int(raw.get("resample", 2)),
            scale=float(raw.get("rescale_factor", _RESCALE)) if raw.get("do_rescale") else 1.0,
            mean=_three(raw.get("image_mean")) if normalises else (0.0, 0.0, 0.0),
            std=_three(raw.get("image_std")) if normalises else (1.0, 1.0, 1.0),
        )
        ours._require_pixels_of(processor, name)
        return ours

    @classmethod
    def square(cls, side: int, mean: tuple[float, float, float], std: tuple[float, float, float]) -> "Preprocessing":
        """A bilinear resize to a square, with pixels scaled to [0, 1] and normalised."""
        return cls(side, side, None, 2, _RESCALE, mean, std)

    def _require_pixels_of(self, processor: Any, name: str) -> None:
        """Compare with the processor on a few images: some ignore their configuration (LeViT's size)."""
        random = np.random.default_rng(0)
        for height, width in ((self.height + 37, 2 * self.width + 11), (2 * self.height + 11, self.width), (5, 7)):
            small = random.integers(0, 256, (7, 9, 3), dtype=np.uint8)
            image = np.asarray(Pillow.fromarray(small).resize((width, height), Pillow.Resampling.BICUBIC), np.uint8)
            try:
                theirs = np.asarray(processor(images=Pillow.fromarray(image), return_tensors="np")["pixel_values"])
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"The image processor of {name!r} ({type(processor).__name__}) fails on an RGB image of "
                    f"{width} by {height} pixels: {' '.join(str(error).split())[:200]}. Use another encoder."
                ) from error
            ours = self.normalised(self.resized(image)[None]).numpy()
            levels = np.asarray(self.std, np.float32).reshape(1, 3, 1, 1) / self.scale
            if theirs.shape != ours.shape or not np.all(np.abs(theirs - ours) * levels < _TOLERANCE):
                raise UserError(
                    f"The image processor of {name!r} ({type(processor).__name__}) produces pixels that differ from "
                    f"its configuration on an image of {width} by {height} pixels. Use another encoder."
                )

    def resized(self, image: Image) -> Image:
        """Resize and crop one image, to [height, width, 3]."""
        picture = Pillow.fromarray(image)
        width, height = picture.size
        edge = self.shortest_edge
        if edge is None:
            scaled = self.width, self.height
        else:  # as in Hugging Face: the longer side is truncated, not rounded
            scaled = (edge, int(edge * height / width)) if width <= height else (int(edge * width / height), edge)
        if picture.size != scaled:
            picture = picture.resize(scaled, self.resample)
        # Cut the centre; Pillow pads a smaller picture with black.
        left, top = (scaled[0] - self.width) // 2, (scaled[1] - self.height) // 2
        return np.asarray(picture.crop((left, top, left + self.width, top + self.height)), np.uint8)

    def normalised(self, images: npt.NDArray[np.uint8], device: "torch.device | str" = "cpu") -> "torch.Tensor":
        """Convert bytes [B, height, width, 3] to the encoder's input, float32 [B, 3, height, width]."""
        import torch

        # Copied, because arrays from Ray's object store are read-only.
        pixels = torch.tensor(images, device=device).permute(0, 3, 1, 2).to(torch.float32) * self.scale
        mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return ((pixels - mean) / std).contiguous()


def _three(values: Any) -> tuple[float, float, float]:
    if isinstance(values, int | float):
        values = [values] * 3
    a, b, c = (float(v) for v in values)
    return a, b, c
