"""Students in ONNX files, computed by onnxruntime on a CPU."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from vadv_dist.inference.batching import padded
from vadv_dist.inference.manifest import ONNX, read_manifest, verify_export
from vadv_dist.inference.onnx_file import open_session
from vadv_dist.inference.text_predictor import CPU_BATCH_TOKENS, TextPredictor

if TYPE_CHECKING:
    import onnxruntime

MODEL_FILE = "model.onnx"


class OnnxStudent(TextPredictor):
    """A text student in an ONNX file.

    In int8 a prediction also depends a little on the texts computed with it, because the range of activations is that
    of the whole batch.

    Args:
        session: the open file.
        tokenizer, max_tokens, batch_tokens, context, separator, classes: as in `TextPredictor`.
        precision: that of the file, `fp32` or `int8`.
    """

    def __init__(
        self,
        session: "onnxruntime.InferenceSession",
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int,
        batch_tokens: int = CPU_BATCH_TOKENS,
        *,
        context: int = 0,
        separator: str = "",
        classes: Sequence[str] = (),
        precision: str = "fp32",
    ) -> None:
        super().__init__(tokenizer, max_tokens, batch_tokens, context=context, separator=separator, classes=classes)
        self._session = session
        self.precision = precision

    @classmethod
    def load(cls, folder: Path, *, batch_tokens: int | None = None) -> "OnnxStudent":
        """Load an export on this machine after verifying its files.

        Raises:
            UserError: as in `verify_export`, or onnxruntime is missing.
        """
        card = verify_export(folder, ONNX).card
        raw = read_manifest(folder)

        from transformers import AutoTokenizer

        return cls(
            open_session(folder / MODEL_FILE),
            AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False),
            card.max_tokens,
            batch_tokens or CPU_BATCH_TOKENS,
            context=card.context,
            separator=card.separator,
            classes=card.classes,
            precision="int8" if raw.get("int8") else "fp32",
        )

    @property
    def on_gpu(self) -> bool:
        """Whether it computes on a GPU."""
        return False

    @property
    def place(self) -> str:
        """Where and in which precision it computes, in words."""
        return f"cpu in {self.precision} by onnxruntime"

    def logits(self, token_ids: list[list[int]]) -> npt.NDArray[np.float32]:
        """See `TextPredictor.logits`."""
        logits = np.empty((len(token_ids), len(self.classes) or 1), np.float32)
        lengths = np.fromiter(map(len, token_ids), np.int64, len(token_ids))
        for rows in self.batches(lengths):
            ids_BL, mask_BL = padded([token_ids[row] for row in rows], self.pad_id)
            inputs = {"input_ids": ids_BL, "attention_mask": mask_BL}
            logits[rows] = self._session.run(["logits"], inputs)[0]
            self.on_batch(len(rows))
        return logits.reshape(-1, *self.shape)


class OnnxTowers:
    """The two towers of a retrieval student, each in an ONNX file.

    Args:
        sessions: the open files by `audio` and `visual`.
    """

    def __init__(self, sessions: "Mapping[str, onnxruntime.InferenceSession]") -> None:
        self._sessions = sessions

    def audio_embedding(self, audio_BA: Tensor) -> Tensor:
        """Embed audio vectors: [B, E], of length 1."""
        return self._run("audio", audio_BA)

    def visual_embedding(self, visual_BV: Tensor) -> Tensor:
        """Embed visual vectors: [B, E], of length 1."""
        return self._run("visual", visual_BV)

    def _run(self, name: str, vectors: Tensor) -> Tensor:
        return torch.from_numpy(self._sessions[name].run(["embedding"], {name: vectors.numpy()})[0])
