"""Rivals of a search: weightings without search, trained with the same seeds as the default."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict

from vadv_dist.config import Config
from vadv_dist.config.search import SearchConfig
from vadv_dist.errors import UserError
from vadv_dist.reporting.markup import join, tag
from vadv_dist.reporting.page import Section
from vadv_dist.reporting.tables import plain_table
from vadv_dist.reporting.words import MISSING
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import EpochLine, StartLine
from vadv_dist.tuning.result import SearchResult
from vadv_dist.tuning.space import WEIGHTS, Entry, Space, Value, get_field, with_values
from vadv_dist.tuning.study import Study
from vadv_dist.tuning.verdict import difference_cells

_FIELD = "objective.weighting"
_PREFIX = "rival "
# Attribute of the trial that starts from the final weights of the best rival.
_SEEDED = "from_rival"


def require_rivals(config: Config, space: Space, search: SearchConfig) -> None:
    """Check that rivals differ from the default, and that the weighting uses the weights that are searched.

    Raises:
        UserError: one of these does not hold.
    """
    own_kind = get_field(config, _FIELD)
    if own_kind in (rival.kind for rival in search.rivals):
        raise UserError(f"search.rivals names {own_kind}, which is the config's own {_FIELD}. Leave it out.")
    for values in rival_values(space, config, search).values():
        with_values(config, values)
    own = next((entry for entry in space.entries if entry.field == _FIELD), None)
    possible = set(own.choices if own else (own_kind,))
    for entry in space.searched:
        ignored = possible & set(entry.condition.get(_FIELD, possible)) - {"fixed"}
        if entry.weight and ignored:
            raise UserError(
                f"{entry.field} is searched, but {_FIELD} may be {', '.join(sorted(map(str, ignored)))}, which finds "
                f"its own weights. Set {_FIELD}: fixed, or give the entry `condition: {{{_FIELD}: fixed}}`."
            )


def rival_values(space: Space, config: Config, search: SearchConfig) -> dict[str, dict[str, Value]]:
    """The default with each rival's weighting, by the rival's name."""
    found = {}
    for rival in search.rivals:
        fields = asdict(rival)
        own = {_FIELD: fields.pop("kind"), **{f"{_FIELD}.{name}": value for name, value in fields.items()}}
        found[f"{_PREFIX}{rival.kind}"] = {**space.default(config), **own}
    return found


def end_weights(
    costs: Mapping[str, Mapping[int, float]], folder_of: Callable[[str, int], RunFolder]
) -> dict[str, dict[str, float]]:
    """The final weights of each rival relative to beta, averaged over its seeds; the rival with the best mean first.

    Args:
        costs: validation cost by rival and seed, without failed runs.
        folder_of: the run of a rival and a seed.
    """
    ranked = sorted((name for name in costs if costs[name]), key=lambda name: statistics.fmean(costs[name].values()))
    ended: dict[str, dict[str, float]] = {}
    for name in ranked:
        runs = [weights for seed in costs[name] if (weights := _last_weights(folder_of(name, seed)))]
        known = {weight: [run[weight] for run in runs if weight in run] for weight in WEIGHTS}
        ended[name] = {weight: statistics.fmean(values) for weight, values in known.items() if values}
    return ended


def seed_trial(study: Study, space: Space, config: Config, ended: Mapping[str, Mapping[str, float]]) -> None:
    """Queue one trial with the final weights of the best rival, if the space contains weights."""
    best = next((name for name, weights in ended.items() if weights), None)
    if best is None or any(_SEEDED in trial.user_attrs for trial in study.optuna.get_trials(deepcopy=False)):
        return
    default = space.default(config)
    beta = default.get("objective.beta", get_field(config, "objective.beta"))
    assert isinstance(beta, int | float)
    weights = ended[best]
    values = {
        e.field: _nearest(e, weights[e.weight] * beta) for e in space.searched if e.weight and e.weight in weights
    }
    if values:
        known = {name: value for name, value in values.items() if value is not None}
        study.optuna.enqueue_trial(space.parameters({**default, **known}, config), user_attrs={_SEEDED: best})


def rivals_section(result: SearchResult) -> Section | None:
    """The table of the rivals; None without rivals."""
    rivals = [candidate for candidate in result.candidates if candidate.name.startswith(_PREFIX)]
    if not rivals:
        return None
    noise = result.noise.values()
    mean = result.score.cost_text(statistics.fmean(noise)) if noise else result.no_score
    rows: list[tuple[str | None, list[str]]] = [(None, ["the default", mean, *(MISSING for _ in ("", "", *WEIGHTS))])]
    for rival in sorted(rivals, key=lambda candidate: candidate.mean):
        weights = result.rivals.get(rival.name, {})
        cells = [
            rival.name.removeprefix(_PREFIX) + (" (collapsed)" if rival.name in result.collapsed else ""),
            result.score.cost_text(rival.mean) if rival.costs else result.no_score,
            *difference_cells(rival.gain),
            *(f"{weights[name]:.3g}" if name in weights else MISSING for name in WEIGHTS),
        ]
        rows.append((result.row_class(rival.name), cells))
    seeded = [
        tag("p", f"Trial {t.number} started from the weights of {t.user_attrs[_SEEDED]}.", class_="about")
        for t in result.study.trials()
        if _SEEDED in t.user_attrs
    ]
    title = "Rivals without search"
    columns = ("Weighting", result.score.heading, "Gain ↑", "Interval", *WEIGHTS)
    return Section(
        "rivals",
        title,
        "Other values of objective.weighting, with the same seeds as the default. Weights are means over the last "
        "epoch and over seeds, divided by beta, because only ratios matter. Collapsed: the weight of a term is at "
        "least a hundred times that of the student’s own term.",
        join(plain_table(title, columns, rows), *seeded),
    )


def _last_weights(folder: RunFolder) -> dict[str, float] | None:
    """Weights in a run's last epoch relative to beta; None if there are none, or if beta is 0.

    Logged weights include the factor of the guard and of the warm-up, which is taken out: the trial has its own. Of an
    epoch with factor 0, nothing is known of the weights that distil; if all are such, these weights are left out.
    """
    lines = folder.metrics_log().lines()
    terms = [line.task.terms for line in lines if isinstance(line, StartLine)]
    logged = [line for line in lines if isinstance(line, EpochLine) and line.weights]
    if not terms or not logged:
        return None
    last = next((line for line in reversed(logged) if line.distillation != 0), logged[-1])
    weights = dict.fromkeys(WEIGHTS, 0.0)
    for term in terms[-1]:
        factor = last.distillation if term.distils and last.distillation is not None else 1.0
        if factor == 0:
            weights.pop(term.weight, None)
        elif term.weight in weights:
            weights[term.weight] = (last.weights.get(term.name) or 0.0) / factor
    own = weights["beta"]
    return {name: weight / own for name, weight in weights.items()} if own else None


def _nearest(entry: Entry, value: float) -> Value:
    """The value of an entry nearest to a weight; None if the entry is not a number."""
    if entry.kind != "float":
        return value if entry.holds(value) else None
    if value == 0 and entry.zero:
        return 0.0
    value = min(max(value, entry.low), entry.high)
    return entry.low + round((value - entry.low) / entry.step) * entry.step if entry.step else value
