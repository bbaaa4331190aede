"""The stages of one data set: make or find it, check it, and estimate what a teacher can add."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from vadv_dist.config.extract_sections import ExtractConfig
from vadv_dist.config.load import build, config_to_dict, read_yaml, set_field
from vadv_dist.config.recipes import config_path
from vadv_dist.config.workflow import (
    AdviseStageConfig,
    CmuSdkDataConfig,
    DataSetConfig,
    ExtractDataConfig,
    MmsaDataConfig,
    ReadyDataConfig,
    SynthDataConfig,
    TableDataConfig,
    VegasDataConfig,
)
from vadv_dist.data.dataset import Dataset
from vadv_dist.errors import UserError
from vadv_dist.storage import Location, local_copy, location, remove_tree, sha256_file, write_json
from vadv_dist.workflow.stage import CARD, Outcome, Stage, Work


def data_stage(name: str, config: DataSetConfig, where: str, known: Mapping[str, str] | None = None) -> Stage:
    """The stage that makes a data set, or finds one that exists.

    Args:
        name: name of the data set.
        config: its section.
        where: the workflow file, for messages.
        known: content of its files, for a machine that does not have them; None reads it.
    Raises:
        UserError: a file of it does not exist, or a mistake in the configuration of an extraction.
    """
    where = f"{where}, data.{name}"
    settings = config_to_dict(config)
    heavy, outside = False, dict(known or {})
    if isinstance(config, ExtractDataConfig):
        extraction = extraction_config(config, "extracted", where)
        settings, heavy = config_to_dict(extraction), True
        if known is None:
            outside = _clips(extraction)
        for section, key in (("clips", "csv"), ("clips", "mmsa"), ("clips", "root"), ("faces", "path")):
            settings[section].pop(key)
        settings.pop("output")
    elif isinstance(config, ReadyDataConfig):
        if known is None:
            outside = {config.uri: Dataset.open(config.uri).manifest.fingerprint}
        settings.pop("uri")
    elif not isinstance(config, SynthDataConfig):
        files = _files(config)
        if known is None:
            outside = {file: _content(file, where) for file in files.values()}
        settings = {key: value for key, value in settings.items() if key not in (*files, "arrays")}
        if isinstance(config, TableDataConfig):
            settings["arrays"] = [array.rpartition(":")[2] for array in config.arrays]

    def run(work: Work) -> Outcome:
        from vadv_dist.workflow.cards import data_card

        if isinstance(config, ReadyDataConfig):
            uri = str(location(config.uri).resolve())
        else:
            _make(config, work, name, where)
            uri = name
        dataset = Dataset.open(_place(work.folder, uri))
        manifest = dataset.manifest
        data_card(dataset, name).write_html(work.folder / CARD)
        rows = {split: manifest.rows(split) for split in manifest.splits}
        facts = {"fingerprint": manifest.fingerprint, "rows": rows}
        # Not dataset.json, which says when it was written.
        write_json(work.folder / "data.json", {**facts, "label": dataclasses.asdict(manifest.label)})
        return Outcome({"uri": uri, **facts}, ["data.json"])

    return Stage(f"data-{name}", "data", settings, run, outside=outside, heavy=heavy)


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
        return Outcome({"warnings": len(findings)}, ("check.json",))

    return Stage(f"check-{name}", "check", {}, run, inputs=(data,))


def advise_stage(name: str, config: AdviseStageConfig, data: Stage, after: Stage) -> Stage:
    """The stage that estimates what a teacher can add over text."""

    def run(work: Work) -> Outcome:
        from vadv_dist.advice import advise
        from vadv_dist.workflow.cards import advice_card

        place = data_folder(work.inputs[data.name])
        manifest = Dataset.open(place).manifest
        if manifest.label.is_class or not {"visual", "face", "audio"} & set(manifest.features):
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


def _make(config: DataSetConfig, work: Work, name: str, where: str) -> None:
    target = work.folder / name
    if (target / "dataset.json").is_file():
        return  # the process was killed after it had written the data set
    if isinstance(config, ExtractDataConfig):
        from vadv_dist.features.extract import extract

        extract(extraction_config(config, str(target), where), work.console)
        return
    with contextlib.suppress(FileNotFoundError):
        remove_tree(target)
    if isinstance(config, SynthDataConfig):
        from vadv_dist.data.synth.made import make

        make(config.made, target)
        return
    reader, arguments = _reader(config)
    with _local(config) as files:
        reader(**files, **arguments, out=str(target))


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
    if isinstance(config, (MmsaDataConfig, CmuSdkDataConfig)):
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


def _content(file: str, where: str) -> str:
    try:
        return sha256_file(location(file))
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{where}: {file} is not a file. Give an existing one.") from None


def extraction_config(config: ExtractDataConfig, out: str, where: str) -> ExtractConfig:
    """The configuration of an extraction.

    Args:
        config: the section.
        out: where to write the data set.
        where: the section's name, for messages.
    Raises:
        UserError: a mistake in it.
    """
    raw = read_yaml(config_path(config.config))
    for name, value in {**config.overrides, "output.uri": out}.items():
        set_field(raw, ExtractConfig, name, value)
    return build(ExtractConfig, raw, (), where)


def _clips(config: ExtractConfig) -> dict[str, str]:
    """The list of an extraction by content, and its clips by size and time of change: hashing videos takes long."""
    from vadv_dist.features.listing import list_clips
    from vadv_dist.storage import file_version, join

    listed = list_clips(config.clips)
    found = {str(listed.file): sha256_file(listed.file)}
    for path in sorted({clip.path for clip in listed.clips}):
        place = join(listed.root, path)
        with contextlib.suppress(OSError):  # the extraction rejects what it cannot read
            found[str(place)] = f"{path} {file_version(place)}"
    return found


def sources_of(folders: Mapping[str, str]) -> list[dict[str, str]]:
    """`data.sources` of a run on several data sets, by name."""
    named = len(folders) > 1
    return [{"uri": uri, **({"name": name} if named else {})} for name, uri in folders.items()]
