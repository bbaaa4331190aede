"""Describe what failed trials have in common."""

from collections import Counter
from collections.abc import Mapping, Sequence

from vadv_dist.errors import MachineError, UserError, VadvError
from vadv_dist.reporting.words import decimals
from vadv_dist.tuning.events import Failed
from vadv_dist.tuning.space import Value

Values = Mapping[str, Value]


def too_many_failures(failed: Sequence[tuple[Values, Failed]], others: Sequence[Values]) -> VadvError:
    """The error that stops a search after consecutive failures.

    Args:
        failed: values and reasons of those failures, the last one last.
        others: values of trials that did not fail.
    """
    kinds = Counter(failure.kind for _, failure in failed)
    told = ", ".join(f"{count} × {kind}" for kind, count in kinds.most_common())
    shared = shared_values([values for values, _ in failed], others)
    what = f" They share: {'; '.join(shared)}." if shared else " Their values have nothing in common."
    kind = kinds.most_common(1)[0][0]
    advice = {
        "out of memory": "Raise trainer.accumulate, or give each trial more of a GPU (search.gpus_per_trial).",
        "NaN or infinity": "Lower the bounds of learning rates and weights, or set optimizer.clip_norm.",
        "refused": "Fix the config or the space file.",
    }.get(kind, "For details, run one of them alone: `vadv train --config` with its config.yaml.")
    text = (
        f"The search stopped after {len(failed)} failed trials in a row ({told}).{what} The last error: "
        f"{failed[-1][1].message} {advice} Run the same command again to resume the search."
    )
    return UserError(text) if kind in ("NaN or infinity", "refused") else MachineError(text)


def shared_values(failed: Sequence[Values], others: Sequence[Values]) -> list[str]:
    """Values, or ranges of numbers, that all failures have and no other trial has."""
    found = []
    for name in failed[0]:
        mine = [values.get(name) for values in failed]
        theirs = [values[name] for values in others if name in values]
        numbers = [v for v in mine if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) < len(mine):
            if len(set(map(str, mine))) == 1 and len(theirs) and mine[0] not in theirs:
                found.append(f"{name} is {mine[0]}")
            continue
        known = [v for v in theirs if isinstance(v, int | float)]
        if known and min(numbers) > max(known):
            found.append(f"{name} is at least {decimals(min(numbers))} (at most {decimals(max(known))} elsewhere)")
        elif known and max(numbers) < min(known):
            found.append(f"{name} is at most {decimals(max(numbers))} (at least {decimals(min(known))} elsewhere)")
    return found
