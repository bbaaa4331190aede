"""`vadv submit`: submit a command to a cluster's job server, follow it, and return its exit code."""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vadv_dist import __version__
from vadv_dist.config import Config, load_config
from vadv_dist.config.extract_sections import ExtractConfig
from vadv_dist.config.load import load_sections, take_overrides
from vadv_dist.config.places import expand
from vadv_dist.config.storage_url import require_sound
from vadv_dist.config.study_runs import StudyRuns, find_study, load_study, small_study
from vadv_dist.errors import UserError
from vadv_dist.runtime.terminal import counted
from vadv_dist.storage import location, sha256_file
from vadv_dist.submission.address import is_this_machine, require_token, resolve_address
from vadv_dist.submission.client import command_line, connect, running_or_free, runtime_environment, submit_once
from vadv_dist.submission.follow import follow
from vadv_dist.submission.job_id import code_digest, folder_digest, job_id, job_slug
from vadv_dist.submission.packing import pack, uploaded_files
from vadv_dist.submission.reach import Reach, require_tracked


@dataclass(frozen=True)
class Submission:
    """A job to submit.

    Args:
        command: `train`, `tune`, `study`, `extract` or `evaluate`.
        arguments: its arguments, as typed after `vadv <command>`.
        address: address of the job server; None uses Ray's environment variables.
        working_dir: folder whose files are uploaded.
        files: those files and folders, relative to it; None uploads what git tracks.
        install: install this package and its exact versions on each node, for images without them.
        detach: do not follow the job.
    """

    command: str
    arguments: tuple[str, ...]
    address: str | None = None
    working_dir: Path = Path(".")
    install: bool = False
    detach: bool = False
    files: tuple[str, ...] | None = None


def submit(submission: Submission, say: Callable[[str], None]) -> int:
    """Start a job, or follow an identical running one, and return its exit code (see `follow`).

    A running job is followed only if command, config, code and working folder are all equal.

    Args:
        submission: the job and its cluster.
        say: prints messages; the job's own output goes to standard output.
    Raises:
        UserError: a mistake that would end the job at once or lose its output.
        MachineError: the job server does not answer.
    """
    address = resolve_address(submission.address)
    require_token(address)
    arguments, name = prepared_arguments(submission, address)
    client = connect(address)
    entrypoint = command_line(address, [submission.command, *arguments])
    slug = job_slug(submission.command, name)
    with tempfile.TemporaryDirectory(prefix="vadv-job-") as scratch:
        count, size = pack(submission.working_dir, Path(scratch), submission.files)
        base = job_id(slug, _facts(submission, entrypoint, Path(scratch)))
        twin, submission_id, others = running_or_free(client, base, slug)
        if twin:
            stop = f"vadv jobs stop {submission_id} --address {address}"
            say(f"{submission_id} already runs on {address}: following it (`{stop}` stops it)")
        else:
            for other in others:
                say(
                    f"{other.submission_id} is also running there, but with another command, config, code or folder, "
                    f"so it is not followed ({other.entrypoint})"
                )
            which = "tracked by git" if submission.files is None else "of --files"
            say(f"packed {counted(count, 'file')} {which}, {size / 2**20:.1f} MiB")
            is_new = submit_once(
                client,
                submission_id,
                entrypoint=entrypoint,
                runtime_env=runtime_environment(scratch, submission.install, os.environ),
                metadata={"job_name": base},
            )
            say(f"{'submitted' if is_new else 'another process submitted'} {submission_id} to {address}")
    if submission.detach:
        say(f"follow it with the same command, or with: vadv jobs logs {submission_id} --follow --address {address}")
        return 0
    return follow(client, submission_id, say, out=sys.stdout)


def prepared_arguments(submission: Submission, address: str) -> tuple[list[str], str]:
    """The arguments for the job, and the name of the run.

    A job runs in a copy of the folder that is deleted afterwards, so its paths must be outside. On this machine's
    cluster relative paths are made absolute; on another they are refused.

    Raises:
        UserError: a mistake in the configuration, or a path that the job could not use.
    """
    arguments, reach = list(submission.arguments), Reach(submission.working_dir, address)
    overrides, _ = take_overrides(arguments)
    if submission.command == "evaluate":
        if not arguments or arguments[0].startswith("-"):
            raise UserError("submit evaluate: give the run, such as s3://BUCKET/runs/NAME.")
        arguments[0] = reach(expand(arguments[0], "the run"), "the run")
        arguments[1:] = _reachable_options(arguments[1:], reach)
        return arguments, f"{location(arguments[0]).name}-{_option(arguments, '--split') or 'test'}"
    tracked = {str(name) for name in uploaded_files(submission.working_dir, submission.files)}
    if submission.command == "study":
        if not arguments or arguments[0].startswith("-"):
            raise UserError("submit study: give the study file, or the name of a shipped one, before its options.")
        return _study_arguments(arguments, overrides, submission.working_dir, tracked, reach)
    config_path = _option(arguments, "--config")
    if config_path is None:
        raise UserError(f"submit {submission.command}: --config is missing.")
    path = submission.working_dir / config_path
    if not path.is_file():
        raise UserError(
            f"{config_path} is not a file below {submission.working_dir.resolve()}, the folder that is uploaded with "
            "the job. Set --config to a path relative to that folder, of a file that is uploaded."
        )
    require_tracked(config_path, tracked)
    # `~` and variables are expanded on this machine, and all expanded paths are sent.
    expands = _has_places_to_expand(path, arguments)
    if submission.command == "extract":
        extraction = load_sections(ExtractConfig, path, overrides)
        return [*arguments, *_extraction_places(extraction, tracked, reach, expands)], path.stem
    for override in overrides:
        if override.startswith("--search.storage="):
            require_sound(override.partition("=")[2])  # arguments are visible to everyone who sees the job
    config = load_config(path, [override for override in overrides if not override.startswith("--search.")])
    if submission.command == "train" and config.trainer.workers == 0:
        raise UserError(
            "trainer.num_workers is 0, so the run would train in the job's own process on the head node. Set "
            "--trainer.num_workers=N."
        )
    space = _option(arguments, "--space") if submission.command == "tune" else None
    name = config.run.name if space is None else f"{config.run.name}-{Path(space).stem}"
    return [*arguments, *_run_places(config, reach, expands)], name


def _facts(submission: Submission, entrypoint: str, packed: Path) -> dict[str, Any]:
    """Everything that determines what a job does, as plain containers."""
    given = [_option(submission.arguments, name) for name in ("--config", "--space")]
    read = {name: submission.working_dir / name for name in given if name}  # they may be outside the packed files
    return {
        "entrypoint": entrypoint,
        "environment": runtime_environment("", submission.install, os.environ),
        "folder": str(submission.working_dir.resolve()),
        "files": folder_digest(packed),
        "read": {name: sha256_file(path) for name, path in read.items() if path.is_file()},
        "version": __version__,
        "code": code_digest(),
    }


def _reachable_options(arguments: Sequence[str], reach: Reach) -> list[str]:
    """The options of an evaluation, with reachable locations."""
    found: list[str] = []
    for argument in arguments:
        option, _, value = argument.partition("=")
        if found and found[-1] in ("--data", "--encoder"):
            option, value = found.pop(), argument
        if option in ("--data", "--encoder") and value:
            value = expand(value, option)
            is_hub_name = option == "--encoder" and not (reach.folder / value).is_dir()
            argument = f"{option}={value if is_hub_name else reach(value, option)}"
        found.append(argument)
    return found


def _has_places_to_expand(path: Path, arguments: Sequence[str]) -> bool:
    lines = path.read_text(encoding="utf-8").splitlines()
    texts = [*(line for line in lines if not line.lstrip().startswith("#")), *arguments]
    return any(sign in text for sign in "~$" for text in texts)


def _study_arguments(
    arguments: Sequence[str], overrides: Sequence[str], folder: Path, tracked: Collection[str], reach: Reach
) -> tuple[list[str], str]:
    """The arguments of a study with reachable locations, and the study's name."""
    given = arguments[0]
    path = folder / given
    if path.is_file():
        require_tracked(given, tracked)
    else:
        path = find_study(given)
    study = load_study(path)
    is_small = _option(arguments, "--scale") == "small"
    if is_small:
        study = small_study(study, given)
    name = _option(arguments, "--name") or f"{path.stem}{'-small' if is_small else ''}"
    runs = StudyRuns(study, given, overrides)
    storage = reach(runs.storage, "run.storage")
    made = {each: f"{storage}/{name}/data/{each}" for each in (study.small.made if is_small else ())}
    expands = _has_places_to_expand(path, arguments)
    places = _run_places(runs.base(made), reach, expands)
    for variant, config in runs.configs(made).items():
        needed = _run_places(config, reach, expands)
        keeps_base = study.variants[variant].config is None  # then what it overrides comes after the command line
        if needed != places and not (keeps_base and set(needed) <= set(places)):
            raise UserError(
                f"{given}, variant {variant!r}: its data or encoder has a relative path of its own, which the job "
                "could not find, or which the study's would replace. Write absolute paths or s3://… in the study file."
            )
    for file in (study.config, *(variant.config for variant in study.variants.values())):
        if file is not None and (folder / file).is_file():
            require_tracked(file, tracked)
    for settings in study.variants.values():
        if settings.predictions is not None:
            for seed in study.seeds if "{seed}" in settings.predictions else (0,):
                require_tracked(settings.predictions.replace("{seed}", str(seed)), tracked)
    return [*arguments, *places], name


def _run_places(config: Config, reach: Reach, always: bool) -> list[str]:
    """The locations of a run as overrides."""
    places: dict[str, str | None] = {"run.storage": config.run.storage}
    if config.text_student is not None:
        places |= {"student.encoder": config.text_student.encoder, "student.init": config.text_student.init}
    overrides = _overrides(places, reach, always)
    reached = [replace(source, uri=reach(source.uri, "data.sources")) for source in config.data.sources]
    if always or reached != config.data.sources:
        given = [{name: value for name, value in asdict(source).items() if value is not None} for source in reached]
        overrides.append(f"--data.sources={json.dumps(given)}")
    return overrides


def _extraction_places(config: ExtractConfig, tracked: Collection[str], reach: Reach, always: bool) -> list[str]:
    """The locations of an extraction as overrides: all are outside the job's folder, except an uploaded list."""
    clips, faces = config.clips, config.faces
    places = {"output.uri": config.output.uri, "clips.csv": clips.csv, "clips.mmsa": clips.mmsa}
    places |= {"clips.root": clips.root, "faces.path": faces.path}
    places |= {"image.encoder": config.image.encoder, "expression.encoder": config.expression.encoder}
    places["clips.transcribe"] = clips.transcribe
    if not is_this_machine(reach.address) and clips.csv is not None and os.path.normpath(clips.csv) in tracked:
        del places["clips.csv"]
    return _overrides(places, reach, always)


def _overrides(places: Mapping[str, str | None], reach: Reach, always: bool) -> list[str]:
    """Locations that the job could not find by itself (or all of them if `always`)."""
    overrides = []
    for name, uri in places.items():
        if uri is not None:
            is_hub_name = name.endswith((".encoder", ".transcribe")) and not (reach.folder / uri).exists()
            reached = uri if is_hub_name else reach(uri, name)
            overrides += [f"--{name}={reached}"] if always or reached != uri else []
    return overrides


def _option(arguments: Sequence[str], name: str) -> str | None:
    for number, argument in enumerate(arguments):
        if argument == name and number + 1 < len(arguments):
            return arguments[number + 1]
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return None
