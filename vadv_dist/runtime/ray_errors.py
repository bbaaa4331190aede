"""Interpret Ray's errors: find ours among their causes, and why a worker or an actor was lost."""

from collections.abc import Iterable

from vadv_dist.errors import VadvError


def own_error(error: BaseException | None) -> VadvError | None:
    """Return our own error among the causes of one that Ray raised."""
    from ray.exceptions import RayError

    while error is not None:
        # Ray's error of a task is also an instance of its cause's class.
        if isinstance(error, VadvError) and not isinstance(error, RayError):
            return error
        # The second is that of Ray Train's error of its controller.
        error = getattr(error, "cause", None) or getattr(error, "controller_failure", None) or error.__cause__
    return None


def why_lost(errors: Iterable[BaseException]) -> str:
    """Say in one line why workers or actors were lost; empty if there are no errors."""
    from ray.exceptions import OutOfMemoryError

    reasons = set()
    for error in errors:
        cause = getattr(error, "health_check_failure", error)  # from a Ray Train worker
        memory = isinstance(cause, OutOfMemoryError)
        reasons.add("Ray stopped it because the machine's memory ran out" if memory else last_line(cause))
    return "; ".join(sorted(reasons))


def last_line(error: BaseException) -> str:
    """An error's class and the last line of its text, which has the reason in Ray's errors."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:300] if lines else ''}"
