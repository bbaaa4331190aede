"""The shipped configurations: `jobs/configs/*.yaml` of a checkout, `share/vadv/recipes` of an installed package."""

import sys
from dataclasses import dataclass
from pathlib import Path

from vadv_dist.errors import UserError, did_you_mean
from vadv_dist.storage import atomic_file, require_absent


@dataclass(frozen=True)
class Recipe:
    """One shipped configuration."""

    name: str
    path: Path
    summary: str

    @property
    def command(self) -> str:
        """The command that accepts it."""
        return "extract" if self.name.startswith("extract-") else "train"


def list_recipes() -> list[Recipe]:
    """Return the shipped recipes by name; a recipe's first comment line is its summary.

    Raises:
        UserError: the installation has none.
    """
    places = (Path(__file__).parents[1] / "jobs" / "configs", Path(sys.prefix) / "share" / "vadv" / "recipes")
    for place in places:
        found = [Recipe(path.stem, path, _summary(path)) for path in sorted(place.glob("*.yaml"))]
        if found:
            return found
    raise UserError("This installation has no recipes. Copy jobs/configs from the project's repository.")


def find_recipe(name: str) -> Recipe:
    """Return a recipe by name.

    Raises:
        UserError: there is no such recipe.
    """
    recipes = {recipe.name: recipe for recipe in list_recipes()}
    recipe = recipes.get(name.removesuffix(".yaml"))
    if recipe is None:
        raise UserError(f"There is no recipe {name!r} (available: {', '.join(recipes)}).{did_you_mean(name, recipes)}")
    return recipe


def copy_recipe(name: str, target: Path) -> None:
    """Copy a recipe to a file that does not exist yet.

    Raises:
        UserError: no such recipe, or the file exists.
    """
    source = find_recipe(name).path
    require_absent(target, "a config", "Choose another file name.")
    with atomic_file(target) as partial:
        partial.write_bytes(source.read_bytes())


def _summary(path: Path) -> str:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
