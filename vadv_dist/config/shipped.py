"""Find a file by its path, or else by the name of one that is shipped."""

import sys
from pathlib import Path

from vadv_dist.errors import UserError, did_you_mean


def find_shipped(given: str | Path, what: str, checkout: str, installation: str) -> Path:
    """Return a file, or the shipped one of that name.

    Args:
        given: a path or a name.
        what: what kind of file it is, for messages.
        checkout: folder of the shipped ones in a checkout.
        installation: the same below `share/vadv` in an installation.
    Raises:
        UserError: there is neither.
    """
    path = Path(given)
    if path.is_file():
        return path
    places = (Path(__file__).parents[2] / checkout, Path(sys.prefix) / "share" / "vadv" / installation)
    shipped = {found.stem: found for place in reversed(places) for found in sorted(place.glob("*.yaml"))}
    if path.stem in shipped and path.parent.name in ("", Path(checkout).name):
        return shipped[path.stem]
    available = f" (available: {', '.join(sorted(shipped))})" if shipped else ""
    raise UserError(
        f"{given} does not exist. Give a {what} file or a shipped one{available}.{did_you_mean(path.stem, shipped)}"
    )
