"""Which stages will run and why, from what is on storage; nothing is written."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from vadv_dist import __version__
from vadv_dist.config.load import differing_keys
from vadv_dist.storage import Location
from vadv_dist.workflow.attempts import is_taken, last_attempt, last_outcome
from vadv_dist.workflow.plan import Workflow
from vadv_dist.workflow.stage import Finished, Stage, read_finished

State = Literal["complete", "running", "stopped", "failed", "missing"]
_MOST = 3  # changes that a reason lists
# What a stage whose last attempt ended so will do.
_UNFINISHED = {
    "open": "its process was killed; it resumes from what is there",
    "lost": "its process was killed; it resumes from what is there",
    "stopped": "it was stopped; it resumes from what is there",
}


@dataclass(frozen=True)
class Explained:
    """A stage, as it is and as it will be.

    Attributes:
        stage: its name.
        kind: its kind.
        folder: its folder.
        state: how far it is.
        will_run: whether a run of the workflow runs it.
        why: the reason.
        attempts: how often it was started.
    """

    stage: str
    kind: str
    folder: str
    state: State
    will_run: bool
    why: str
    attempts: int

    def to_json(self) -> dict[str, Any]:
        """Plain containers."""
        return asdict(self)


def explain(workflow: Workflow, force: Collection[str] = ()) -> list[Explained]:
    """Say of every stage whether it will run, and why.

    Args:
        workflow: the workflow.
        force: stages to run again.
    Raises:
        UserError: there is no such stage in `force`.
    """
    forced = {workflow.stage(name).name for name in force}
    found: dict[str, Explained] = {}
    complete: dict[str, Finished] = {}
    for stage in workflow.stages.values():
        folder = workflow.folder(stage)
        finished = read_finished(folder)
        if finished is not None:
            complete[stage.name] = finished
        found[stage.name] = _explained(stage, folder, workflow.root, finished, found, complete, forced)
    return list(found.values())


def _explained(
    stage: Stage,
    folder: Location,
    root: Location,
    finished: Finished | None,
    before: Mapping[str, Explained],
    complete: Mapping[str, Finished],
    forced: Collection[str],
) -> Explained:
    attempts = last_attempt(folder)

    def say(state: State, will_run: bool, why: str) -> Explained:
        return Explained(stage.name, stage.kind, str(folder), state, will_run, why, attempts)

    if stage.name in forced:
        return say("missing" if finished is None else "complete", True, "forced")
    if finished is not None:
        built_on = {each.name: complete[each.name] for each in stage.inputs if each.name in complete}
        if not finished.is_built_on(built_on):
            changed = [name for name, each in built_on.items() if not finished.is_built_on({name: each})]
            return say("complete", True, f"{', '.join(changed)} gave another result since")
        if not stage.is_current(finished, built_on):
            return say("complete", True, "files from outside changed or were touched; their content is compared")
        redone = [each.name for each in stage.inputs if before[each.name].will_run]
        if redone:
            return say("complete", False, f"complete; runs again only if {', '.join(redone)} gives another result")
        return say("complete", False, "complete")
    outcome = last_outcome(folder)
    if outcome["state"] == "open" and is_taken(folder):
        return say("running", True, "another process works on it; its result will be used")
    if outcome["state"] in _UNFINISHED:
        return say("stopped", True, _UNFINISHED[outcome["state"]])
    if outcome["state"] == "failed":
        return say("failed", True, f"it failed: {outcome['message']}")
    return say("missing", True, _why_missing(stage, root))


def _why_missing(stage: Stage, root: Location) -> str:
    """What differs from the last complete stage of the same name."""
    earlier = _latest(root / stage.name)
    if earlier is None:
        return "never run"
    then = earlier.manifest
    reasons = [f"version {then['version']} is now {__version__}"] if then["version"] != __version__ else []
    reasons += [_changed(line) for line in differing_keys(dict(then["settings"]), _plain(stage.settings))]
    known = then["outside"].values()
    if sorted(known) != sorted(seen.content for seen in stage.seen.values()):
        files = [seen.place for seen in stage.seen.values() if seen.content not in known]
        reasons.append(f"{', '.join(files[:_MOST]) or 'a file'} changed")
    now = {each.name: each.identity for each in stage.inputs}
    reasons += [f"{name} has changed" for name in now if then["inputs"].get(name, {}).get("identity") != now[name]]
    more = f" and {len(reasons) - _MOST} more" if len(reasons) > _MOST else ""
    return "; ".join(reasons[:_MOST]) + more or "never run"


def _changed(line: str) -> str:
    name, _, values = line.partition(": ")
    return f"{name}: {values.removesuffix(' now').replace(' there, ', ' → ')}"


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As it is read back from JSON."""
    import json

    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def _latest(folder: Location) -> Finished | None:
    found = [each for path in folder.glob("*") if (each := read_finished(path)) is not None]
    return max(found, key=lambda each: float(each.manifest["finished"]), default=None)
