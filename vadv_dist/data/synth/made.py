"""Synthetic data sets as files declare them: `made` in studies and workflows."""

import dataclasses
from typing import Any

from vadv_dist.config.study import MadeConfig
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.synth.dataset import make_dataset
from vadv_dist.data.synth.retrieval_dataset import make_retrieval_dataset
from vadv_dist.storage import Location

# Parameters of the random models by the name of their setting, which `vadv synth` gives them too.
_PARAMETERS = {
    "annotator_noise": "s_annot",
    "video_noise": "s_video",
    "classes": "num_classes",
    "audio_noise": "s_audio",
    "visual_noise": "s_visual",
}


def make(made: MadeConfig, target: Location) -> Dataset:
    """Make a data set in a folder."""
    make = make_dataset if made.kind == "sentiment" else make_retrieval_dataset
    dataset: Dataset = make(str(target), **_arguments(made))
    return dataset


def differing(made: MadeConfig, target: Location) -> list[str]:
    """The parameters in which a data set that exists differs from what is declared."""
    known = Dataset.open(target).manifest.provenance.get("parameters", {})
    return [key for key, value in _arguments(made).items() if _plain(known.get(key, value)) != value]


def _arguments(made: MadeConfig) -> dict[str, Any]:
    given = {key: value for key, value in dataclasses.asdict(made).items() if value is not None and key != "kind"}
    return {_PARAMETERS.get(key, key): _plain(value) for key, value in given.items()}


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
