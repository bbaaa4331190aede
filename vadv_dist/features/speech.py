"""The words of clips without words, from a speech recognition model that the user names."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import numpy.typing as npt

from vadv_dist.features.clip_files import open_clip
from vadv_dist.features.timeline import BadClipError
from vadv_dist.models.pretrained import load_pretrained, quiet_transformers

if TYPE_CHECKING:
    import torch

RATE = 16_000  # samples per second: of Whisper, Wav2Vec2 and nearly all others
_MAX_S = 1800.0
_CHUNK_S = 30  # longer clips are transcribed in overlapping parts, except by models with a way of their own
_FIELD = "clips.transcribe"


def read_sound(uri: str, start_s: float, end_s: float, rate: int = RATE) -> npt.NDArray[np.float32]:
    """The sound of a part of a file, [samples], mono.

    Args:
        uri: the file.
        start_s, end_s: in player time, where 0 is the start of the file's earliest stream.
        rate: samples per second of the result.
    Raises:
        BadClipError: it has no sound, or cannot be read.
    """
    if end_s - start_s > _MAX_S:
        raise BadClipError(f"too long to transcribe: {end_s - start_s:.0f} s, at most {_MAX_S:.0f} s")
    parts: list[npt.NDArray[np.float32]] = []
    try:
        with open_clip(uri) as file, av.open(file, mode="r", metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise BadClipError("no words and no sound")
            resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
            first, begun = (container.start_time or 0) / av.time_base, None
            for frame in container.decode(container.streams.audio[0]):
                time = float(frame.time or 0.0) - first
                if time >= end_s:
                    break
                begun = time if begun is None else begun
                parts += [np.array(part.to_ndarray()[0], np.float32) for part in resampler.resample(frame)]
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadClipError(f"unreadable sound: {type(error).__name__}") from None
    sound = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    low, high = (max(0, round((time - (begun or 0.0)) * rate)) for time in (start_s, end_s))
    if not len(sound[low:high]):
        raise BadClipError("no words and no sound in its part of the file")
    return sound[low:high]


class Transcriber:
    """A speech recognition model of transformers.

    Args:
        model: Hugging Face name or folder.
        device: where it computes.
    Raises:
        UserError: it cannot be found, or is of another kind.
    """

    def __init__(self, model: str, device: "torch.device") -> None:
        from huggingface_hub import snapshot_download
        from transformers import pipeline

        def load(source: str, local: bool) -> Any:
            if local and not Path(source).is_dir():
                # The pipeline would pass `local_files_only` on to Whisper's `generate`, which refuses it.
                source = snapshot_download(source, local_files_only=True)
            with quiet_transformers():
                return pipeline("automatic-speech-recognition", model=source, device=device)

        self._recognise = load_pretrained(model, load, _FIELD)
        self._rate = int(self._recognise.feature_extractor.sampling_rate)
        self._readers: ProcessPoolExecutor | None = None

    def words(self, uri: str, start_s: float, end_s: float) -> str:
        """The words of a clip.

        Raises:
            BadClipError: it has no sound, or nothing was recognised.
        """
        if self._readers is None:  # decoders can crash their process
            self._readers = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        try:
            sound = self._readers.submit(read_sound, uri, start_s, end_s, self._rate).result()
        except BrokenProcessPool:
            self._readers = None
            raise BadClipError("unreadable sound: the decoder crashed") from None
        with quiet_transformers():
            found = self._recognise({"raw": sound, "sampling_rate": self._rate}, **self._long(len(sound)))
        text = " ".join(str(found["text"]).split())
        if not text:
            raise BadClipError("no words were recognised")
        return text

    def _long(self, samples: int) -> dict[str, Any]:
        """How to transcribe sound that is longer than what a model reads at once.

        Whisper finds the ends of its parts by its own timestamps; transducers read sound of any length.
        """
        kind = self._recognise.type
        if kind == "seq2seq_whisper":
            return {"return_timestamps": True} if samples > self._recognise.feature_extractor.n_samples else {}
        return {"chunk_length_s": _CHUNK_S} if samples > _CHUNK_S * self._rate and kind != "tdt" else {}

    def close(self) -> None:
        """End the process that reads sound."""
        if self._readers is not None:
            self._readers.shutdown()
