"""Raw clips to a data set: a Ray Data pipeline with overlapping stages, or the same stages in this process.

Groups of clips become shards one by one, so that a resumed run repeats only the groups that were not finished.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

from vadv_dist.config.extract_sections import ExtractConfig
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.schema import Array, Clip
from vadv_dist.data.shards import check_clip
from vadv_dist.errors import ExistsError, UserError
from vadv_dist.features.assemble import SOURCES_NAME, ExtractSummary, assemble, summary
from vadv_dist.features.frames import READER_VERSION
from vadv_dist.features.listing import list_clips
from vadv_dist.features.plan import MADE_BY, Plan, make_plan
from vadv_dist.features.ray_pipeline import Room, runtime, through_ray
from vadv_dist.features.stages import ClipBatch, ClipReport, choose_device, in_process
from vadv_dist.features.work import Group, GroupRecord, WorkFolder
from vadv_dist.formats.parquet import read_table
from vadv_dist.storage import local_copy, location, sha256_file

if TYPE_CHECKING:
    from rich.console import Console

    from vadv_dist.features.transcripts import Transcripts

_LINE_EVERY_S = 15.0

# Adds finished clips and, of these, the rejected ones.
Advance = Callable[[int, int], None]


def extract(config: ExtractConfig, console: "Console", *, retry_rejected: bool = False) -> ExtractSummary:
    """Create a data set from raw clips, or resume an interrupted extraction.

    Args:
        config: the resolved configuration.
        console: shows progress.
        retry_rejected: repeat the groups with rejected clips, which may have been fixed.
    Raises:
        UserError: a mistake in the configuration or the list, or more rejected clips than `output.max_rejected` allows.
        MachineError: a full disk, an object store that does not respond, or repeatedly lost workers.
    """
    listed = list_clips(config.clips)
    for sentence in listed.said:
        _say(console, sentence)
    with runtime(config) as room:
        plan = make_plan(config, listed, use_gpu=room.gpus > 0)
        done = _finished(plan)
        if done is not None:
            _say(console, f"{done.uri} is already complete")
            return done
        work = WorkFolder(config.output.uri, plan.job)
        with work.lock():
            records = work.done(plan.groups)
            if retry_rejected:
                for group in plan.groups:
                    if group.name in records and records[group.name].rejected:
                        work.forget(group)
                        del records[group.name]
            begun = next((group for group in plan.groups if group.name in records), None)
            if begun is not None:
                reports = work.reports(begun)
                _require_same_clips(plan, {r.clip_id: r.sha256 for r in reports if r.reason is None})
            if records:
                _say(console, f"resuming: {len(records):,} of {len(plan.groups):,} shards are complete")
            todo = [group for group in plan.groups if group.name not in records]
            already = len(listed.clips) - sum(len(group.clips) for group in todo)
            rejected = sum(record.rejected for record in records.values())
            progress = _progress(console, len(listed.clips), already, rejected)
            with progress as advance, _transcripts(plan, work, todo, retry_rejected) as words:
                for group, record in _run(plan, work, todo, room, advance, words):
                    records[group.name] = record
            return assemble(plan, work, records)


def _finished(plan: Plan) -> ExtractSummary | None:
    """The summary of the data set if this job has already completed it.

    Raises:
        UserError: the data set belongs to another job.
    """
    root = location(plan.config.output.uri)
    if not (root / "dataset.json").is_file():
        return None
    manifest = Dataset.open(root).manifest
    made = manifest.provenance
    if made.get("made_by") != MADE_BY or any(
        made.get(key) != plan.provenance[key] for key in ("files", "encoders", "options")
    ):
        raise ExistsError(
            f"{root} already exists with another list or configuration, and a data set is not overwritten. Set "
            "another output.uri, or remove this one."
        )
    if made.get("reader") != READER_VERSION:
        raise ExistsError(
            f"{root} was extracted by version {made.get('reader', 1)} of the video reader; this is version "
            f"{READER_VERSION}, which reads other frames or faces from some files. Set another output.uri to extract "
            "the clips again, or keep using this data set as it is."
        )
    if made.get("root") != plan.provenance["root"] and (root / SOURCES_NAME).is_file():
        with local_copy(root / SOURCES_NAME) as path:
            rows = read_table(path, ["clip_id", "sha256"]).slice(0, 1).to_pylist()
        _require_same_clips(plan, {row["clip_id"]: row["sha256"] for row in rows})
    work = WorkFolder(root, plan.job)
    if work.is_left():  # the process was killed before removing it, or another is about to remove it
        with suppress(UserError), work.lock():
            work.remove()
    return summary(root, manifest)


def _require_same_clips(plan: Plan, hashes: Mapping[str, str]) -> None:
    """Refuse a list with the same rows as an earlier one but other clip files.

    Args:
        plan: the extraction.
        hashes: SHA-256 of the files that were read, by clip; the first of them is compared.
    Raises:
        UserError: its file has changed.
    """
    clip = next((clip for clip in plan.listed.clips if hashes.get(clip.clip_id)), None)
    if clip is None:
        return
    place = location(plan.listed.location(clip))
    with suppress(FileNotFoundError):
        now, then = sha256_file(place), hashes[clip.clip_id]
        if now != then:
            raise UserError(
                f"{plan.config.output.uri} was started with other clips: {clip.clip_id} had SHA-256 {then[:12]}, but "
                f"{place} now has {now[:12]}. Restore those clips, or set another output.uri."
            )


def _run(
    plan: Plan,
    work: WorkFolder,
    todo: Sequence[Group],
    room: Room,
    advance: Advance,
    words: "Transcripts | None",
) -> Iterator[tuple[Group, GroupRecord]]:
    """Process the missing groups; each is written as soon as its last batch is complete, in any order."""
    numbered = [(group, clips) for group in todo for clips in group.batches(plan.config.batching.clips)]
    batches = [[plan.listed.clips[i] for i in clips] for _, clips in numbered]
    located = ([(clip, plan.listed.location(clip)) for clip in clips] for clips in batches)
    if plan.config.compute.num_workers == 0:
        done = in_process(plan.stages, located)
    else:
        done = through_ray(plan.stages, located, room)
    waiting: dict[str, dict[int, ClipBatch]] = {}
    for batch in done if todo else ():
        group = numbered[batch.number][0]
        mine = waiting.setdefault(group.name, {})
        mine[batch.number] = batch
        advance(len(batch.reports), sum(report.reason is not None for report in batch.reports))
        if sum(len(part.reports) for part in mine.values()) == len(group.clips):
            del waiting[group.name]
            yield group, _commit(plan, work, group, [mine[number] for number in sorted(mine)], words)


@contextmanager
def _transcripts(
    plan: Plan, work: WorkFolder, todo: Sequence[Group], retry_rejected: bool
) -> "Iterator[Transcripts | None]":
    """What finds the words of clips, if some have none."""
    model = plan.config.clips.transcribe
    if model is None or all(plan.listed.clips[number].text for group in todo for number in group.clips):
        yield None
        return
    from vadv_dist.features.speech import Transcriber
    from vadv_dist.features.transcripts import Transcripts

    transcriber = Transcriber(model, choose_device(plan.config.compute.use_gpu))
    found = Transcripts(transcriber, work.transcripts, retry_rejected=retry_rejected)
    try:
        yield found
    finally:
        found.close()


def _commit(
    plan: Plan, work: WorkFolder, group: Group, parts: list[ClipBatch], words: "Transcripts | None"
) -> GroupRecord:
    """Write a group's shard; clips whose features cannot be stored are rejected."""
    clips, reports = [], []
    numbers = iter(group.clips)
    for part in parts:
        visual, face = (iter(() if values is None else values) for values in (part.visual, part.face))
        for report in part.reports:
            listed = plan.listed.clips[next(numbers)]
            if listed.clip_id != report.clip_id:
                raise RuntimeError(
                    f"{group.name}: got the features of {report.clip_id} instead of those of {listed.clip_id}"
                )
            if report.reason is None:
                values: dict[str, Array | None] = {}
                if "visual" in plan.features:
                    values["visual"] = next(visual)
                if "face" in plan.features:
                    values["face"] = next(face) if report.has_face else None
                if words is not None and not listed.text:
                    report = words.complete(report, plan.listed.location(listed))
                if report.reason is not None:
                    reports.append(report)
                    continue
                text = report.text or listed.text
                clip = Clip(listed.clip_id, listed.video_id, text, listed.label, plan.listed.source, values)
                try:
                    check_clip(clip, plan.features, plan.listed.label)
                    clips.append(clip)
                except UserError as error:
                    report = ClipReport(report.clip_id, reason=f"features: {error}")
            reports.append(report)
    return work.commit(group, clips, reports, plan.features)


def _say(console: "Console", text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def _progress(console: "Console", total: int, done: int, rejected: int) -> Iterator[Advance]:
    """Count finished clips: a bar in a terminal, plain lines elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("extracting"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("clips, {task.fields[rate]:.1f}/s, {task.fields[rejected]} rejected,"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        transient=True,
    )
    task = bar.add_task("", total=total, completed=done, rate=0.0, rejected=rejected)
    before = done
    began = last_line = time.monotonic()

    def advance(clips: int, bad: int) -> None:
        nonlocal done, rejected, last_line
        done, rejected, now = done + clips, rejected + bad, time.monotonic()
        rate = (done - before) / max(now - began, 1e-9)
        bar.update(task, completed=done, rate=rate, rejected=rejected)
        if not console.is_terminal and now - last_line >= _LINE_EVERY_S:
            last_line = now
            minutes = (total - done) / rate / 60
            counts = f"{done:,} of {total:,} clips, {rate:.1f}/s, {rejected:,} rejected"
            _say(console, f"{counts}, {minutes:.0f} min left")

    with bar if console.is_terminal else nullcontext():
        yield advance
