"""Everything known about an extraction before a clip is read: shards, features, encoders, prompts."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from vadv_dist.config.extract_sections import ClipsConfig, ExtractConfig
from vadv_dist.config.load import config_to_dict
from vadv_dist.data.schema import Array, FeatureSpec
from vadv_dist.features.clip_files import file_entry
from vadv_dist.features.frames import READER_VERSION
from vadv_dist.features.listing import ClipList
from vadv_dist.features.stages import ClipReader, StageSpec
from vadv_dist.features.work import Group, cut_groups
from vadv_dist.storage import location

MADE_BY = "vadv extract"


@dataclass(frozen=True)
class Plan:
    """Everything known before a clip is read.

    Attributes:
        features: features of the data set.
        job: the settings that determine the data set's bytes.
        provenance: the provenance for `dataset.json`.
    """

    config: ExtractConfig
    listed: ClipList
    groups: list[Group]
    features: dict[str, FeatureSpec]
    stages: StageSpec
    prompts: Array | None
    job: dict[str, Any]
    provenance: dict[str, Any]


def make_plan(config: ExtractConfig, listed: ClipList, *, use_gpu: bool) -> Plan:
    """Check the configuration, embed the prompts and cut the list into groups, without reading a clip.

    Raises:
        UserError: an encoder or a detector cannot be loaded, or is of the wrong kind.
    """
    from vadv_dist.features.encoders import encoder_facts, feature_shape, prompt_embeddings, tower_preprocessing
    from vadv_dist.features.expression import check_expression, expression_preprocessing

    features: dict[str, FeatureSpec] = {}
    encoders: dict[str, Any] = {}
    visual = face = prompts = None
    image = config.image.encoder
    if image is not None:
        visual = tower_preprocessing(image)
        shape = (config.frames.visual, *feature_shape(image, config.image.tokens))
        features["visual"] = FeatureSpec(shape, config.output.dtype)
        encoders["image"] = {**encoder_facts(image), "preprocessing": asdict(visual)}
        if config.prompts.store:
            prompts = prompt_embeddings(image, config.prompts.template, config.prompt_classes)
    if config.faces.kind != "none":
        face = expression_preprocessing(config.expression)
        features["face"] = FeatureSpec((config.frames.face, config.expression.num_scores), config.output.dtype)
        encoders["expression"] = {**check_expression(config.expression), "preprocessing": asdict(face)}
    if config.clips.transcribe is not None:
        encoders["transcriber"] = encoder_facts(config.clips.transcribe, "clips.transcribe")
    precision = config.batching.precision
    if precision == "auto":
        precision = "bf16" if use_gpu else "fp32"
    stages = StageSpec(config, visual, face, precision)
    ClipReader(stages)  # checks the detector or OpenFace's folder
    if config.faces.kind == "yunet":
        encoders["detector"] = file_entry(location(config.faces.path or ""))
    plain = config_to_dict(config)
    # What determines the bytes: not the output location, the compute settings, or max_rejected.
    decisive = {name: section for name, section in plain.items() if name not in ("output", "compute")}
    decisive["output"] = {name: plain["output"][name] for name in ("shard_rows", "shard_bytes", "dtype")}
    decisive["batching"]["precision"] = precision
    decisive["clips"] = _without_defaults(decisive["clips"])
    listing = listed.files[0] if len(listed.files) == 1 else list(listed.files)
    encoders = json.loads(json.dumps(encoders))
    per_row = sum(spec.bytes_per_row for spec in features.values())
    rows = max(1, min(config.output.shard_rows, config.output.shard_bytes // per_row))
    return Plan(
        config=config,
        listed=listed,
        groups=cut_groups(listed.clips, rows),
        features=features,
        stages=stages,
        prompts=prompts,
        job={"reader": READER_VERSION, "config": decisive, "list": listing, "encoders": encoders},
        provenance={
            "made_by": MADE_BY,
            "reader": READER_VERSION,
            "files": list(listed.files),
            "root": str(listed.root.resolve()),
            "encoders": encoders,
            "options": decisive,
        },
    )


# Fields of `clips` that every job records, also with their defaults.
_ALWAYS_RECORDED = ("csv", "mmsa", "root", "source", "label_range", "threshold")


def _without_defaults(clips: dict[str, Any]) -> dict[str, Any]:
    """Leave out fields with their defaults, so that work from before these fields existed can be resumed."""
    defaults = config_to_dict(ClipsConfig())
    return {name: value for name, value in clips.items() if name in _ALWAYS_RECORDED or value != defaults[name]}
