"""Fields set on the command line: `--section.field=VALUE` or `--section.field VALUE`."""

from collections.abc import Sequence

from vadv_dist.errors import UserError


def take_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate the arguments that set fields from all others.

    The argument after `--section.field` is its value unless it starts with `--`; a value that does needs the form with
    `=`.

    Returns:
        the overrides as `--section.field=VALUE`, and the other arguments, both in order.
    Raises:
        UserError: a field without a value.
    """
    overrides, others = [], []
    left = iter(arguments)
    pending = next(left, None)
    while pending is not None:
        argument, pending = pending, next(left, None)
        name, has_value, _ = argument.partition("=")
        if not name.startswith("--") or "." not in name:
            others.append(argument)
        elif has_value:
            overrides.append(argument)
        elif pending is None or pending.startswith("--"):
            raise UserError(f"{name} has no value. Write {name}=VALUE or {name} VALUE.")
        else:
            overrides.append(f"{name}={pending}")
            pending = next(left, None)
    return overrides, others
