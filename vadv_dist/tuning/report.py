"""`tune-report.html`: whether a search gained anything, and what it tried."""

import statistics
import warnings
from collections.abc import Mapping

import optuna
from optuna.trial import FrozenTrial, TrialState

from vadv_dist.config import config_to_yaml
from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.page import Page, Section, document, folded, grid
from vadv_dist.reporting.pictures import Picture
from vadv_dist.reporting.tables import facts_list, plain_table
from vadv_dist.reporting.words import MISSING
from vadv_dist.runtime.terminal import counted
from vadv_dist.tuning.figures import (
    curves_picture,
    history_picture,
    importance_picture,
    parallel_picture,
    reached_cost,
    slice_pictures,
)
from vadv_dist.tuning.front import front_section
from vadv_dist.tuning.lineage import lineage_section
from vadv_dist.tuning.objectives import BY_KEY
from vadv_dist.tuning.progress import Plan
from vadv_dist.tuning.result import SearchResult
from vadv_dist.tuning.rivals import rivals_section
from vadv_dist.tuning.space import value_text, with_values
from vadv_dist.tuning.study import costs_by_epoch
from vadv_dist.tuning.verdict import Candidate, difference_cells, noise_text

Rows = list[tuple[str | None, list[str]]]
_STATES = {TrialState.COMPLETE: "ended", TrialState.PRUNED: "stopped", TrialState.RUNNING: "running"}


def report_page(result: SearchResult) -> Page:
    """The page; the same search gives the same bytes."""
    trials = result.study.trials()
    sections = [
        _result_section(result),
        front_section(result),
        rivals_section(result),
        _terms_section(result),
        _history_section(result, trials),
        lineage_section(result) if result.search.scheduler == "pbt" else _fields_section(result, trials),
        _trials_section(result, trials),
        _facts_section(result, trials),
    ]
    return document(f"{result.folder.name} · vadv tune", _header(result), sections, "vadv tune")


def _header(result: SearchResult) -> Markup:
    title = "Better than the default" if result.verdict.is_better else "No gain over the default"
    sentence, kind = result.verdict.sentence, "a search"
    if not result.is_complete:
        title, kind = "Not finished", "a search, not finished"
        if all(candidate.gain is None for candidate in result.candidates):
            sentence = "no configuration has been compared with the default"
        total = Plan.of(result.config, result.space, result.search).total
        sentence = f"{result.num_ended} of about {counted(total, 'training')} done; so far, {sentence}"
    caveat = (
        "Validation clips selected checkpoints, trials and the winner, so all these numbers are optimistic. The test "
        "split was not opened; score the winner on it once, with vadv evaluate."
    )
    return join(
        tag("p", tag("b", result.folder.name), f" · {kind}", class_="over"),
        tag("h1", title),
        tag("p", f"{sentence[0].upper()}{sentence[1:]}.", class_="lede"),
        tag(
            "p",
            f"Noise between seeds, from the default: {noise_text(result.noise, result.score)}. {caveat}",
            class_="caveat",
        ),
    )


def _result_section(result: SearchResult) -> Section:
    rows: Rows = [(result.row_class("default"), _row(result, "default", result.noise, None))]
    rows += [(result.row_class(c.name), _row(result, c.name, c.costs, c)) for c in result.candidates]
    columns = ("Configuration", "Seeds", result.score.heading, "Gain ↑", "Interval")
    with_clips = result.candidates and all(c.clips is not None for c in result.candidates if c.gain is not None)
    sampled = "seeds and of validation clips" if with_clips else "seeds, but not of validation clips"
    changed = ", its last values; they changed during training" if len(result.schedule) > 1 else ""
    leads = join("The winner, ", tag("code", "best.yaml")) if result.is_complete else "The best so far"
    winner = tag("p", leads, f" ({result.winner}{changed}):", class_="about")
    values = {name: value_text(value) for name, value in result.values.items()}
    return Section(
        "answer",
        "The best, trained again",
        "Trained with seeds that the search did not use, and compared with the default on the same seeds. The "
        f"intervals cover the sampling of {sampled}, and are widened for the choice among the configurations.",
        join(plain_table("The best, trained again", columns, rows), winner, facts_list(values)),
    )


def _row(result: SearchResult, name: str, costs: Mapping[int, float], compared: Candidate | None) -> list[str]:
    mean = result.score.cost_text(statistics.fmean(costs.values())) if costs else result.no_score
    return [name, str(len(costs)), mean, *difference_cells(compared.gain if compared else None)]


def _terms_section(result: SearchResult) -> Section | None:
    if not result.terms:
        return None
    rows: Rows = []
    for term in result.terms:
        mean = result.score.cost_text(term.mean) if term.costs else result.no_score
        rows.append((None, [f"{term.name} = 0", mean, *difference_cells(term.gain and term.gain.opposite)]))
    return Section(
        "terms",
        "Without each term",
        f"The winner ({result.winner}) with one weight set to zero, with the same seeds. A term is useful if the "
        "result is worse without it. Weights that are already zero are not listed.",
        plain_table("Without each term", ("Weight", result.score.heading, "Worse by", "95 % interval"), rows),
    )


def _history_section(result: SearchResult, trials: list[FrozenTrial]) -> Section:
    rows: Rows = []
    for trial in trials:
        if trial.state == TrialState.PRUNED and (known := costs_by_epoch(trial)):
            last, when = max(known), trial.datetime_complete
            at = f"{when:%Y-%m-%d %H:%M:%S}" if when else MISSING
            rows.append((None, [f"trial {trial.number}", str(last), result.score.cost_text(known[last]), at]))
    columns = ("Trial", "After epoch", f"{result.score.title} there", "When")
    table = plain_table("Stopped trials", columns, rows)
    pictures = _drawn(history_picture(trials, result.score), curves_picture(trials, result.score))
    return Section(
        "history",
        "History",
        "The line is the best of the trials that ended. Crosses are failed trials. Values outside the axes are drawn "
        "on their edge.",
        join(grid(pictures, "wide"), folded(f"Stopped trials ({len(rows)})", table) if rows else ""),
        pictures,
    )


def _fields_section(result: SearchResult, trials: list[FrozenTrial]) -> Section:
    shares, entries = importances(result.study.optuna), result.space.searched
    note = "Too few trials ended, or their scores are equal, so the effect of each field is unknown."
    if shares:
        note = "Share of the variation among the trials that ended that each field explains (fANOVA)."
    wide = _drawn(
        importance_picture(shares) if shares else None,
        parallel_picture(trials, entries, result.score),
    )
    slices = slice_pictures(trials, entries, result.score)
    return Section(
        "fields",
        "What matters",
        "A segment of a log axis, marked 0, stands for a weight of zero.",
        join(tag("p", note, class_="about"), grid(wide, "wide"), grid(slices)),
        [*wide, *slices],
    )


def importances(study: optuna.Study) -> dict[str, float]:
    """Share of the score's variation that each field explains alone or with others (fANOVA), the largest first.

    Empty if fewer than four trials ended or their scores are equal. Fields that are not set in all trials are left out.

    Source:
        Hutter, Hoos and Leyton-Brown, An efficient approach for assessing hyperparameter importance (ICML 2014).
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < 4 or len({trial.values[0] for trial in complete}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return optuna.importance.get_param_importances(study, evaluator=evaluator, target=lambda t: t.values[0])
        except (ValueError, RuntimeError):  # no field is set in all trials, or none varies
            return {}


def _drawn(*pictures: Picture | None) -> list[Picture]:
    return [picture for picture in pictures if picture is not None]


def _trials_section(result: SearchResult, trials: list[FrozenTrial]) -> Section:
    names = [entry.field for entry in result.space.searched]
    rows: Rows = []
    notes: list[Markup] = []
    for trial in trials:
        values, failure, cost = result.study.values(trial), result.study.failure(trial), reached_cost(trial)
        how = f"failed: {failure['kind']}" if failure else _STATES.get(trial.state, trial.state.name.lower())
        score = MISSING if cost is None else result.score.cost_text(cost)
        cells = (value_text(values.get(name, MISSING)) for name in names)
        rows.append((None, [f"trial {trial.number}", how, score, *cells]))
        reasons = [f"{failure['kind']}: {failure['message']}"] if failure else []
        notes += [tag("li", f"Trial {trial.number}: {r}") for r in [*reasons, *trial.user_attrs.get("remarks", [])]]
    table = plain_table("All trials", ("Trial", "How it ended", result.score.title, *names), rows)
    note = "Values are those at the start of each trial." if result.search.scheduler == "pbt" else ""
    listed = tag("ul", *notes, class_="notes") if notes else ""
    return Section("trials", "Trials", note, join(folded(f"All {len(trials)} trials", table), listed))


def _facts_section(result: SearchResult, trials: list[FrozenTrial]) -> Section:
    search, states = result.search, [trial.state for trial in trials]
    facts = {
        "Trials": str(len(trials)),
        "Ended": str(states.count(TrialState.COMPLETE)),
        "Stopped": str(states.count(TrialState.PRUNED)),
        "Failed": str(states.count(TrialState.FAIL)),
        **({} if result.is_complete else {"Running": str(states.count(TrialState.RUNNING))}),
        "Objectives": ", ".join(BY_KEY[key].title for key in search.objectives),
        "Sampler": f"{search.sampler}, seed {search.seed}",
        "Scheduler": _scheduler(result),
        "Study": result.study.optuna.study_name,
    }
    best = config_to_yaml(with_values(result.config, result.values))
    return Section(
        "search",
        "Search",
        "",
        join(facts_list(facts), folded("The winner’s configuration", tag("pre", best, tabindex=0))),
    )


def _scheduler(result: SearchResult) -> str:
    search = result.search
    if result.study.has_several:
        return "none, because there are several objectives"
    if search.scheduler == "pbt":
        return f"pbt, interval {search.interval}, quantile {search.quantile:g}, resample {search.resample:g}"
    return f"asha, from epoch {search.min_epochs}, 1 in {search.reduction}" if search.scheduler == "asha" else "none"
