"""The metadata block of a model card, as the Hugging Face Hub reads it, and facts without places of this machine."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vadv_dist.evaluation.description import Metric
from vadv_dist.evaluation.hub_names import hub_name

# Parts of a configuration that say where things are or how a run is watched, not what was trained.
_LEFT_OUT = frozenset({"storage", "ray_address", "telemetry"})
_PLACE = re.compile(r"^(?:[A-Za-z]:[\\/]|[\\/~]|\.{1,2}(?:[\\/]|$))|://|^\S+/\S+/\S+$")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class Publication:
    """What only the owner of a model can say about it.

    Args:
        license: identifier of a license on the Hub, such as `mit`; None if it was not stated.
        languages: codes of its texts' languages (ISO 639-1), such as `en`.
        base_model: name of the encoder on the Hub; None takes the name that training used, unless it is a folder.
    """

    license: str | None = None
    languages: tuple[str, ...] = ()
    base_model: str | None = None


UNSTATED = Publication()


@dataclass(frozen=True)
class Subject:
    """What a card is about, for its metadata.

    Args:
        name: of the model.
        task: `pipeline_tag` of the Hub; empty for tasks that it does not list.
        task_name: the task in words.
        library: what loads the folder.
        tags: further tags.
        encoder: name or path of the encoder that training started from; empty without one.
    """

    name: str
    task: str
    task_name: str
    library: str
    tags: tuple[str, ...]
    encoder: str = ""


def metadata(
    subject: Subject,
    publication: Publication,
    metrics: Mapping[str, Mapping[str, float | None]],
    known: Sequence[Metric],
    data: Sequence[Mapping[str, Any]],
) -> str:
    """Write the metadata block, including the lines of `---` around it.

    Args:
        subject, publication: facts of the card.
        metrics: values by split and key; None or NaN if undefined.
        known: the metrics that are listed, in order.
        data: one entry per training data set, as in the card.
    """
    from huggingface_hub import EvalResult, ModelCardData

    names = [data_name(entry) for entry in data] or ["not recorded"]
    results = [
        EvalResult(
            task_type=subject.task or subject.tags[0],
            task_name=subject.task_name,
            dataset_type=_slug("-".join(names)),
            dataset_name=" + ".join(names),
            dataset_split=split,
            dataset_args={"fingerprint": [str(entry.get("fingerprint", "?")) for entry in data]},
            metric_type=hub_name(metric.key),
            metric_name=metric.title,
            metric_value=round(value, 6),
        )
        for split, values in metrics.items()
        for metric in known
        if (value := values.get(metric.key)) is not None and value == value
    ]
    card = ModelCardData(
        license=publication.license or "other",
        license_name=None if publication.license else "not-stated",
        language=list(publication.languages) or None,
        library_name=subject.library,
        pipeline_tag=subject.task or None,
        tags=list(subject.tags),
        base_model=publication.base_model or hub_id(subject.encoder),
        datasets=[_slug(name) for name in names] if data else None,
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=subject.name,
        eval_results=results or None,
    )
    return f"---\n{card.to_yaml()}\n---"


def hub_id(encoder: str) -> str | None:
    """An encoder's name on the Hub; None for a folder."""
    return encoder if _HUB_ID.fullmatch(encoder) else None


def without_place(text: str) -> str:
    """A name or place without its folders or its store, if it is a place: `/data/minilm` is `minilm`."""
    return _last(text) or "a folder" if _PLACE.search(text) else text


def data_name(entry: Mapping[str, Any]) -> str:
    """Name of a training data set: its own or, without one, that of its folder."""
    return str(entry.get("name") or _last(str(entry.get("uri", ""))) or "a data set")


def _last(place: str) -> str:
    """The last folder of a place, or its package; empty for a whole disk, home or bucket."""
    scheme, _, rest = place.rpartition("://")
    parts = re.split(r"[\\/]+", rest.rstrip("\\/"))
    if scheme == "package":
        return parts[0]
    return "" if scheme and len(parts) < 2 else parts[-1].lstrip("~.")


def public_data(data: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The data sets of a card by name and fingerprint, without their places."""
    kept = ("fingerprint", "label", "rows", "train_share")
    return [{"name": data_name(entry), **{key: entry[key] for key in kept if key in entry}} for entry in data]


def public_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's configuration without places, addresses and settings of its telemetry."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if key == "uri":
            found.setdefault("name", data_name(config))
        elif key not in _LEFT_OUT and not (key == "name" and value is None and "uri" in config):
            found[key] = _public(value)
    return found


def _public(value: Any) -> Any:
    if isinstance(value, Mapping):
        return public_config(value)
    if isinstance(value, list | tuple):
        return [_public(item) for item in value]
    return without_place(value) if isinstance(value, str) else value


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "data"
