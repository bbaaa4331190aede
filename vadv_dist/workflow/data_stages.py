"""The stages of one data set: make or find it, check it, and estimate what a teacher can add."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from vadv_dist.config.load import config_to_dict
from vadv_dist.config.workflow import (
    AdviseStageConfig,
    CmuSdkDataConfig,
    DataSetConfig,
    ExtractDataConfig,
    MmsaDataConfig,
    ReadyDataConfig,
    SequencesConfig,
    SynthDataConfig,
    TableDataConfig,
    VegasDataConfig,
)
from vadv_dist.data.dataset import Dataset
from vadv_dist.errors import UserError
from vadv_dist.storage import Location, local_copy, location, remove_tree, write_json
from vadv_dist.workflow.extraction import Extraction
from vadv_dist.workflow.outside import OutsideFile, content_of, version_of
from vadv_dist.workflow.stage import CARD, Outcome, Stage, Work


def data_stage(name: str, config: DataSetConfig, where: str) -> Stage:
    """The stage that makes a data set, or finds one that exists.

    Args:
        name: name of the data set.
        config: its section.
        where: the workflow file, for messages.
    Raises:
        UserError: a mistake in the configuration of an extraction.
    """
    where = f"{where}, data.{name}"
    settings, outside = config_to_dict(config), dict[str, OutsideFile]()
    extraction = Extraction(config, where) if isinstance(config, ExtractDataConfig) else None
    if extraction is not None:
        settings, outside = extraction.settings, extraction.outside
    elif isinstance(config, ReadyDataConfig):
        uri = config.uri
        outside["uri"] = OutsideFile(uri, lambda: Dataset.open(uri).manifest.fingerprint)
        settings.pop("uri")
    elif not isinstance(config, SynthDataConfig):
        files = _files(config)
        outside = {field: content_of(place, where) for field, place in files.items()}
        settings = {key: value for key, value in settings.items() if key not in (*files, "arrays")}
        if isinstance(config, TableDataConfig):
            settings["arrays"] = [array.rpartition(":")[2] for array in config.arrays]

    def run(work: Work) -> Outcome:
        from vadv_dist.workflow.cards import data_card

        uri = name
        if extraction is not None:
            extraction.run(work, name)
        elif isinstance(config, ReadyDataConfig):
            uri = str(location(config.uri).resolve())
        else:
            _make(config, work.folder / name)
        dataset = Dataset.open(_place(work.folder, uri))
        manifest = dataset.manifest
        data_card(dataset, name).write_html(work.folder / CARD)
        rows = {split: manifest.rows(split) for split in manifest.splits}
        facts = {"fingerprint": manifest.fingerprint, "rows": rows}
        # Not dataset.json, which says when it was written.
        write_json(work.folder / "data.json", {**facts, "label": dataclasses.asdict(manifest.label)})
        return Outcome({"uri": uri, **facts}, ["data.json"])

    stage = Stage(f"data-{name}", "data", settings, run, outside=outside)
    if extraction is not None:
        return dataclasses.replace(stage, versions=extraction.versions, heavy=True)
    return stage


def check_stage(name: str, data: Stage) -> Stage:
    """The stage that verifies a data set; its errors end the workflow."""

    def run(work: Work) -> Outcome:
        from vadv_dist.data.shared_videos import check_datasets
        from vadv_dist.workflow.cards import check_card

        check = check_datasets([str(data_folder(work.inputs[data.name]))])
        write_json(work.folder / "check.json", check.to_json())
        check_card(check, name).write_html(work.folder / CARD)
        findings = [finding for report in check.reports for finding in report.findings]
        if not check.ok:
            first = next(finding for finding in findings if finding.level == "error")
            raise UserError(
                f"The data set {name} cannot be used: {first.where}: {first.what}. {first.advice} All findings are in "
                f"{work.folder / 'check.json'}."
            )
        return Outcome({"warnings": sum(finding.level == "warning" for finding in findings)}, ("check.json",))

    return Stage(f"check-{name}", "check", {}, run, inputs=(data,))


def advise_stage(name: str, config: AdviseStageConfig, data: Stage, after: Stage) -> Stage:
    """The stage that estimates what a teacher can add over text."""

    def run(work: Work) -> Outcome:
        from vadv_dist.advice import TEACHER_FEATURES, advise
        from vadv_dist.workflow.cards import advice_card

        place = data_folder(work.inputs[data.name])
        manifest = Dataset.open(place).manifest
        if not manifest.has_words or not (config.features or TEACHER_FEATURES & manifest.features.keys()):
            write_json(work.folder / "advice.json", {"verdict": "not applicable"})
            advice_card(None, name).write_html(work.folder / CARD)
            return Outcome({"verdict": "not applicable"}, ("advice.json",))
        advice = advise(
            str(place), encoder=config.encoder, features=config.features, max_clips=config.max_clips, seed=config.seed
        )
        write_json(work.folder / "advice.json", advice.to_json())
        advice_card(advice, name).write_html(work.folder / CARD)
        return Outcome({"verdict": advice.verdict, "why": list(advice.why)}, ("advice.json",))

    return Stage(f"advise-{name}", "advise", config_to_dict(config), run, inputs=(data,), after=(after,))


def data_folder(finished: Any) -> Location:
    """The folder of a data set, from its complete stage."""
    return _place(finished.folder, str(finished.values["uri"]))


def _place(folder: Location, uri: str) -> Location:
    place = location(uri)
    return place if place.is_absolute() else folder / uri


def _make(config: DataSetConfig, target: Location) -> None:
    with contextlib.suppress(FileNotFoundError):
        remove_tree(target)  # of an attempt that was killed, which may have read other files
    if isinstance(config, SynthDataConfig):
        from vadv_dist.data.synth.made import make

        make(config.made, target)
        return
    reader, arguments = _reader(config)
    places = _files(config).values()
    before = [version_of(place) for place in places]
    with _local(config) as files:
        reader(**files, **arguments, out=str(target))
    for place, version in zip(places, before, strict=True):
        if version_of(place) != version:
            raise UserError(f"{place} changed while it was read. Run the same command again.")


def _reader(config: Any) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function that reads a foreign format, and its arguments besides files."""
    from vadv_dist.data.readers.cmu_sdk import ingest_cmu_sdk
    from vadv_dist.data.readers.mmsa import ingest_mmsa
    from vadv_dist.data.readers.sequences import Framing
    from vadv_dist.data.readers.table import ingest_table
    from vadv_dist.data.readers.vegas import ingest_vegas

    kinds: dict[type, Callable[..., Any]] = {
        TableDataConfig: ingest_table,
        MmsaDataConfig: ingest_mmsa,
        CmuSdkDataConfig: ingest_cmu_sdk,
        VegasDataConfig: ingest_vegas,
    }
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    arguments = {key: value for key, value in fields.items() if key not in ("kind", "arrays", *_FILES)}
    if isinstance(config, VegasDataConfig):
        arguments["num_classes"] = arguments.pop("classes")
    if isinstance(config, SequencesConfig):
        framing = [arguments.pop(key) for key in ("frames", "pool", "non_finite", "dtype")]
        arguments["framing"] = Framing(*framing)
    return kinds[type(config)], arguments


_FILES = ("csv", "file", "labels", "folds", "words", "text_csv", "visual", "face", "audio")


def _files(config: Any) -> dict[str, str]:
    """The files of a foreign format: fields and places. An array's file is a field `arrays.N`."""
    found = {name: getattr(config, name, None) for name in _FILES}
    arrays = getattr(config, "arrays", ())
    found |= {f"arrays.{number}": array.rpartition(":")[0] for number, array in enumerate(arrays)}
    return {name: place for name, place in found.items() if place}


@contextlib.contextmanager
def _local(config: Any) -> Iterator[dict[str, Any]]:
    """Arguments with the files of a foreign format as files on this machine."""
    with contextlib.ExitStack() as stack:
        files: dict[str, Any] = {
            name: str(stack.enter_context(local_copy(location(place)))) for name, place in _files(config).items()
        }
        arrays = [
            f"{files.pop(f'arrays.{number}')}:{array.rpartition(':')[2]}"
            for number, array in enumerate(getattr(config, "arrays", ()))
        ]
        if arrays:
            files["arrays"] = arrays
        yield files


def sources_of(folders: Mapping[str, str]) -> list[dict[str, str]]:
    """`data.sources` of a run on several data sets, by name."""
    named = len(folders) > 1
    return [{"uri": uri, **({"name": name} if named else {})} for name, uri in folders.items()]
