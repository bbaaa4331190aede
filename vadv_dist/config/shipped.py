"""Find files that are shipped: those of a checkout, or in an installation those in `share/vadv`."""

import site
import sys
from pathlib import Path

from vadv_dist.errors import UserError, did_you_mean


def shipped_folders(checkout: str, installation: str) -> tuple[Path, ...]:
    """Where shipped files may be, the likeliest first.

    Args:
        checkout: their folder in a checkout.
        installation: the same below `share/vadv` in an installation.
    """
    root = Path(__file__).parents[2]
    # Of an environment, of `pip install --target`, and of `pip install --user`.
    bases = (sys.prefix, root, site.getuserbase())
    return (root / checkout, *(Path(base) / "share" / "vadv" / installation for base in bases))


def find_shipped(given: str | Path, what: str, checkout: str, installation: str) -> Path:
    """Return a file, or the shipped one of that name.

    `demo` and `jobs/workflows/demo.yaml` name a shipped file, the latter also where there is no checkout. `demo.yaml`
    does not: who types it means a file of their own.

    Args:
        given: a path or a name.
        what: what kind of file it is, for messages.
        checkout, installation: see `shipped_folders`.
    Raises:
        UserError: there is neither.
    """
    path = Path(given)
    if path.is_file():
        return path
    places = shipped_folders(checkout, installation)
    shipped = {found.stem: found for place in reversed(places) for found in sorted(place.glob("*.yaml"))}
    if str(given) in shipped or (path.stem in shipped and path.parent.name == Path(checkout).name):
        return shipped[path.stem]
    from vadv_dist.config.hints import uses_of

    other = "".join(f" There is {use}." for use in uses_of(str(given)))
    available = f" (available: {', '.join(sorted(shipped))})" if shipped else ""
    near = did_you_mean(path.stem, shipped)
    raise UserError(f"{given} does not exist.{other} Give a {what} file or a shipped one{available}.{near}")
