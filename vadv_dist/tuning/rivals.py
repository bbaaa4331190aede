"""Rivals of a search: weightings that need no search, trained with the same seeds as the default."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from vadv_dist.config import Config
from vadv_dist.config.objective_sections import WeightingConfig
from vadv_dist.config.search import SearchConfig
from vadv_dist.errors import UserError
from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.page import Section
from vadv_dist.reporting.tables import plain_table
from vadv_dist.reporting.words import MISSING
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import EpochLine, StartLine
from vadv_dist.tuning.space import WEIGHTS, Entry, Space, Value, get_field, with_values
from vadv_dist.tuning.study import Study
from vadv_dist.tuning.verdict import signed_cost

if TYPE_CHECKING:
    from vadv_dist.tuning.result import Answer

_FIELD = "objective.weighting"
_PREFIX = "rival "
# The mark of the trial that begins where the best rival ended.
_SEEDED = "from_rival"


def require_sense(config: Config, space: Space, search: SearchConfig) -> None:
    """Refuse rivals that are none, and a search over weights that a weighting would ignore.

    Raises:
        UserError: see above.
    """
    own_kind = get_field(config, _FIELD)
    if own_kind in (rival.kind for rival in search.rivals):
        raise UserError(f"search.rivals names {own_kind}, which is the config's own {_FIELD}. Leave it out.")
    for values in rival_values(space, config, search).values():
        with_values(config, values)
    own = next((entry for entry in space.entries if entry.field == _FIELD), None)
    possible = set(own.choices if own else (own_kind,))
    for entry in space.searched:
        section, weight = entry.field.split(".", 1)
        ignored = possible & set(entry.condition.get(_FIELD, possible)) - {"fixed"}
        if section == "objective" and weight in WEIGHTS and ignored:
            raise UserError(
                f"{entry.field} is searched, but {_FIELD} may be {', '.join(sorted(map(str, ignored)))}, which finds "
                f"weights of its own. Set {_FIELD}: fixed, or give the entry `condition: {{{_FIELD}: fixed}}`."
            )


def rival_values(space: Space, config: Config, search: SearchConfig) -> dict[str, dict[str, Value]]:
    """The default with each rival's weighting, by the rival's name."""
    default = space.default(config)
    return {f"{_PREFIX}{rival.kind}": {**default, **_fields_of(rival)} for rival in search.rivals}


def _fields_of(rival: WeightingConfig) -> dict[str, Value]:
    """The fields that a weighting sets, its kind first."""
    fields = asdict(rival)
    return {_FIELD: fields.pop("kind"), **{f"{_FIELD}.{name}": value for name, value in fields.items()}}


def end_weights(
    costs: Mapping[str, Mapping[int, float]], folder_of: Callable[[str, int], RunFolder]
) -> dict[str, dict[str, float]]:
    """Weights at which rivals ended, β at 1, averaged over their seeds; the rival with the best mean score first.

    Args:
        costs: validation cost by rival and seed, of the runs that did not fail.
        folder_of: the run of a rival and a seed.
    """
    ranked = sorted((name for name in costs if costs[name]), key=lambda name: statistics.fmean(costs[name].values()))
    ended: dict[str, dict[str, float]] = {}
    for name in ranked:
        runs = [weights for seed in costs[name] if (weights := _last_weights(folder_of(name, seed)))]
        ended[name] = {weight: statistics.fmean(run[weight] for run in runs) for weight in WEIGHTS if runs}
    return ended


def seed_trial(study: Study, space: Space, config: Config, ended: Mapping[str, Mapping[str, float]]) -> None:
    """Queue a trial with the weights at which the best rival ended, where the space has weights; once in a search."""
    best = next((name for name, weights in ended.items() if weights), None)
    entries = [e for e in space.searched if e.field.startswith("objective.") and e.field.split(".")[1] in WEIGHTS]
    if best is None or not entries or any(_SEEDED in t.user_attrs for t in study.optuna.get_trials(deepcopy=False)):
        return
    default = space.default(config)
    beta = default.get("objective.beta", get_field(config, "objective.beta"))
    assert isinstance(beta, int | float)
    values = {entry.field: _onto(entry, ended[best][entry.field.split(".")[1]] * beta) for entry in entries}
    parameters = space.parameters({**default, **{name: v for name, v in values.items() if v is not None}}, config)
    study.optuna.enqueue_trial(parameters, user_attrs={_SEEDED: best})


def rivals_section(answer: "Answer") -> Section | None:
    """The table of the rivals; None without any."""
    rivals = [candidate for candidate in answer.candidates if candidate.name.startswith(_PREFIX)]
    if not rivals:
        return None
    noise = answer.noise.values()
    rows: list[tuple[str | None, list[str]]] = [
        (None, ["the default", f"{statistics.fmean(noise):.4f}" if noise else "failed", *(MISSING,) * 7])
    ]
    for rival in sorted(rivals, key=lambda candidate: candidate.mean):
        gain, weights = rival.gain, answer.rivals.get(rival.name, {})
        rows.append(
            (
                "ours" if rival.name == answer.winner else None,
                [
                    rival.name.removeprefix(_PREFIX) + (" (collapsed)" if rival.name in answer.collapsed else ""),
                    answer.score.text(answer.score.value(rival.mean)) if rival.costs else "failed",
                    MISSING if gain is None else signed_cost(gain.mean),
                    MISSING if gain is None else f"{signed_cost(gain.low)} … {signed_cost(gain.high)}",
                    *(f"{weights[name]:.3g}" if name in weights else MISSING for name in WEIGHTS),
                ],
            )
        )
    seeded = [t for t in answer.study.trials() if _SEEDED in t.user_attrs]
    note: Markup | str = ""
    if seeded:
        start = f"Trial {seeded[0].number} began with the weights of {seeded[0].user_attrs[_SEEDED]}."
        note = tag("p", start, class_="about")
    columns = ("Weighting", answer.score.heading, "Gain ↑", "Interval", "α", "β", "γ", "δ", "ψ")
    return Section(
        "rivals",
        "Rivals that need no search",
        "Other values of objective.weighting, under the same seeds as the default. Weights are means over the last "
        "epoch and over seeds, with β at 1: only ratios matter. Collapsed: a term weighs at least a hundred "
        "times the text’s.",
        join(plain_table("Rivals that need no search", columns, rows), note),
    )


def _last_weights(folder: RunFolder) -> dict[str, float] | None:
    """Weights over a run's last epoch by `alpha` to `psi`, β at 1; None where it has none, or the text's is 0."""
    lines = folder.metrics_log().lines()
    terms = [line.task.terms for line in lines if isinstance(line, StartLine)]
    logged = [line.weights for line in lines if isinstance(line, EpochLine) and line.weights]
    if not terms or not logged:
        return None
    weights = {term.weight: logged[-1].get(term.name) or 0.0 for term in terms[-1]}
    own = weights.get("beta")
    return {name: weights.get(name, 0.0) / own for name in WEIGHTS} if own else None


def _onto(entry: Entry, value: float) -> Value:
    """The place on an entry's axis that is nearest to a weight; None where the axis has no such places."""
    if entry.kind != "float":
        return value if entry.holds(value) else None
    if value == 0 and entry.zero:
        return 0.0
    value = min(max(value, entry.low), entry.high)
    return entry.low + round((value - entry.low) / entry.step) * entry.step if entry.step else value
