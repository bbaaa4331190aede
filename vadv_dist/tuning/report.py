"""`tune-report.html`: whether a search gained anything, and what it tried. It loads nothing and needs no script."""

import statistics
from collections.abc import Mapping

from optuna.trial import FrozenTrial, TrialState

from vadv_dist.config import config_to_yaml
from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.page import Page, Section, document, folded, grid
from vadv_dist.reporting.pictures import Picture
from vadv_dist.reporting.tables import facts_list, plain_table
from vadv_dist.reporting.words import MISSING, decimals
from vadv_dist.tuning.figures import (
    curves_picture,
    history_picture,
    importance_picture,
    parallel_picture,
    reached,
    slice_pictures,
)
from vadv_dist.tuning.front import front_section
from vadv_dist.tuning.importance import importances
from vadv_dist.tuning.lineage import lineage_section
from vadv_dist.tuning.objectives import BY_KEY, Objective
from vadv_dist.tuning.result import Answer
from vadv_dist.tuning.rivals import rivals_section
from vadv_dist.tuning.space import Value, with_values
from vadv_dist.tuning.study import course
from vadv_dist.tuning.verdict import Candidate, signed_cost, spread


def report_page(answer: Answer) -> Page:
    """The page: the same bytes for the same search."""
    trials = answer.study.trials()
    sections = [
        _answer_section(answer),
        front_section(answer),
        rivals_section(answer),
        _terms_section(answer),
        _history_section(answer, trials),
        lineage_section(answer) if answer.search.scheduler == "pbt" else _fields_section(answer, trials),
        _trials_section(answer, trials),
        _facts_section(answer, trials),
    ]
    return document(f"{answer.folder.name} · vadv tune", _header(answer), sections, "vadv tune")


def _header(answer: Answer) -> Markup:
    sentence = answer.verdict.sentence
    title = "Better than the default" if answer.verdict.is_better else "No gain over the default"
    caveat = (
        "Validation clips chose checkpoints, trials and the winner, so these numbers flatter them all. The test split "
        "was not opened; score the winner on it once, with vadv evaluate."
    )
    return join(
        tag("p", tag("b", answer.folder.name), " · a search", class_="over"),
        tag("h1", title),
        tag("p", f"{sentence[0].upper()}{sentence[1:]}.", class_="lede"),
        tag(
            "p",
            f"Noise of training, from the default alone: {spread(answer.noise, answer.score)}. {caveat}",
            class_="caveat",
        ),
    )


def _answer_section(answer: Answer) -> Section:
    rows = [(_row_class(answer, "default"), _row("default", answer.noise, None, answer.score))]
    rows += [(_row_class(answer, c.name), _row(c.name, c.costs, c, answer.score)) for c in answer.candidates]
    values = {name: _text(value) for name, value in answer.values.items()}
    table = plain_table(
        "The best, run again", ("Configuration", "Seeds", answer.score.heading, "Gain ↑", "Interval"), rows
    )
    changed = ", its last values; it changed them while it trained" if len(answer.schedule) > 1 else ""
    winner = tag("p", "The winner, ", tag("code", "best.yaml"), f" ({answer.winner}{changed}):", class_="about")
    return Section(
        "answer",
        "The best, run again",
        "Under seeds that the search did not see, beside the default under the same ones. The intervals hold the "
        f"choice of {_sampled(answer)}, and are widened for the choice among the configurations.",
        join(table, winner, facts_list(values)),
    )


def _sampled(answer: Answer) -> str:
    """What the intervals hold the choice of."""
    if answer.candidates and all(c.clips is not None for c in answer.candidates if c.gain is not None):
        return "seeds and of validation clips"
    return "seeds alone, not that of validation clips"


def _terms_section(answer: Answer) -> Section | None:
    if not answer.terms:
        return None
    rows: list[tuple[str | None, list[str]]] = []
    for term in answer.terms:
        loss = None if term.gain is None else -term.gain.mean
        between = MISSING if term.gain is None else f"{signed_cost(-term.gain.high)} … {signed_cost(-term.gain.low)}"
        mean = answer.score.of_cost(term.mean) if term.costs else "failed"
        rows.append((None, [f"{term.name} = 0", mean, MISSING if loss is None else signed_cost(loss), between]))
    return Section(
        "terms",
        "Without each term",
        f"The winner ({answer.winner}) with one weight set to zero, under the same seeds. A term is worth its place "
        "where the result is worse without it. Weights that are zero already are not listed.",
        plain_table("Without each term", ("Weight", answer.score.heading, "Worse by", "95 % interval"), rows),
    )


def _history_section(answer: Answer, trials: list[FrozenTrial]) -> Section:
    stopped = [t for t in trials if t.state == TrialState.PRUNED and course(t)]
    rows: list[tuple[str | None, list[str]]] = []
    for trial in stopped:
        when = trial.datetime_complete
        at = f"{when:%Y-%m-%d %H:%M:%S}" if when else MISSING
        known = course(trial)
        step = max(known)
        rows.append((None, [f"trial {trial.number}", str(step), answer.score.of_cost(known[step]), at]))
    columns = ("Trial", "After epoch", f"{answer.score.title} there", "When")
    table = plain_table("Stopped trials", columns, rows) if rows else ""
    pictures = _drawn(history_picture(trials, answer.score), curves_picture(trials, answer.score))
    return Section(
        "history",
        "History",
        "The line is the best of the trials that ended. Crosses failed. Values beyond an edge are drawn on it.",
        join(
            grid(pictures, "wide"),
            folded(f"What was stopped, and when ({len(rows)})", table) if rows else "",
        ),
        pictures,
    )


def _fields_section(answer: Answer, trials: list[FrozenTrial]) -> Section:
    shares, entries = importances(answer.study.optuna), answer.space.searched
    told = "Too few trials ended, or they do not differ, to tell which field matters."
    if shares:
        told = "Share of the variation among trials that ended which each field explains (fANOVA)."
    wide = _drawn(
        importance_picture(shares) if shares else None,
        parallel_picture(trials, entries, answer.score),
    )
    slices = slice_pictures(trials, entries, answer.score)
    return Section(
        "fields",
        "What matters",
        "A stretch of a log axis stands for a weight of zero; it is marked 0.",
        join(tag("p", told, class_="about"), grid(wide, "wide"), grid(slices)),
        [*wide, *slices],
    )


def _drawn(*pictures: Picture | None) -> list[Picture]:
    return [picture for picture in pictures if picture is not None]


def _trials_section(answer: Answer, trials: list[FrozenTrial]) -> Section:
    names = [entry.field for entry in answer.space.searched]
    rows: list[tuple[str | None, list[str]]] = []
    for trial in trials:
        values = answer.study.values(trial)
        failure = answer.study.failure(trial)
        how = f"failed: {failure['kind']}" if failure else _STATES.get(trial.state, trial.state.name.lower())
        cost = reached(trial)
        cells = [_text(values[name]) if name in values else MISSING for name in names]
        reached_text = MISSING if cost is None else answer.score.of_cost(cost)
        rows.append((None, [f"trial {trial.number}", how, reached_text, *cells]))
    table = plain_table("All trials", ("Trial", "How it ended", answer.score.title, *names), rows)
    failed = [(trial.number, answer.study.failure(trial)) for trial in trials]
    failures = [tag("li", f"Trial {n}, {why['kind']}: {why['message']}") for n, why in failed if why is not None]
    remarked = [tag("li", f"Trial {t.number}: {remark}") for t in trials for remark in t.user_attrs.get("remarks", [])]
    listed = tag("ul", *failures, *remarked, class_="notes") if failures or remarked else ""
    note = "Values are those that each began with." if answer.search.scheduler == "pbt" else ""
    return Section("trials", "Trials", note, join(folded(f"All {len(trials)} trials", table), listed))


_STATES = {TrialState.COMPLETE: "ended", TrialState.PRUNED: "stopped", TrialState.RUNNING: "running"}


def _facts_section(answer: Answer, trials: list[FrozenTrial]) -> Section:
    search, states = answer.search, [trial.state for trial in trials]
    facts = {
        "Trials": str(len(trials)),
        "Ended": str(states.count(TrialState.COMPLETE)),
        "Stopped": str(states.count(TrialState.PRUNED)),
        "Failed": str(states.count(TrialState.FAIL)),
        "Objectives": ", ".join(BY_KEY[key].title for key in search.objectives),
        "Sampler": f"{search.sampler}, seed {search.seed}",
        "Scheduler": _scheduler(answer),
        "Study": answer.study.optuna.study_name,
    }
    best = config_to_yaml(with_values(answer.config, answer.values))
    return Section(
        "search",
        "Search",
        "",
        join(facts_list(facts), folded("The winner’s configuration", tag("pre", best, tabindex=0))),
    )


def _scheduler(answer: Answer) -> str:
    search = answer.search
    if answer.study.has_several:
        return "none: there are several objectives"
    if search.scheduler == "pbt":
        return f"pbt, every {search.interval} epochs, quantile {search.quantile:g}, drawn anew {search.resample:g}"
    return f"asha, from epoch {search.min_epochs}, 1 in {search.reduction}" if search.scheduler == "asha" else "none"


def _row(name: str, costs: Mapping[int, float], compared: Candidate | None, score: Objective) -> list[str]:
    gain = None if compared is None else compared.gain
    return [
        name,
        str(len(costs)),
        score.of_cost(statistics.fmean(costs.values())) if costs else "failed",
        MISSING if gain is None else signed_cost(gain.mean),
        MISSING if gain is None else f"{signed_cost(gain.low)} … {signed_cost(gain.high)}",
    ]


def _row_class(answer: Answer, name: str) -> str | None:
    return "ours" if name == answer.winner else None


def _text(value: Value) -> str:
    return decimals(value) if isinstance(value, float) else str(value)
