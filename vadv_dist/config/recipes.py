"""The shipped configurations: `jobs/configs/*.yaml` in a checkout, `share/vadv/recipes` in an installation."""

from dataclasses import dataclass
from pathlib import Path

from vadv_dist.config.shipped import shipped_folders
from vadv_dist.errors import UserError, did_you_mean


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
    """Return the shipped recipes sorted by name; a recipe's first comment is its summary.

    Raises:
        UserError: the installation has none.
    """
    for place in shipped_folders("jobs/configs", "recipes"):
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
    recipe = recipes.get(name)
    if recipe is None:
        raise UserError(f"There is no recipe {name!r} (available: {', '.join(recipes)}).{did_you_mean(name, recipes)}")
    return recipe


def config_path(path: str | Path) -> Path:
    """Find a configuration file by path, or else by the name of a recipe.

    Raises:
        UserError: there is neither.
    """
    if Path(path).exists() or Path(path).name != str(path):
        return Path(path)
    try:
        return find_recipe(str(path)).path
    except UserError as error:
        from vadv_dist.config.hints import uses_of

        other = "".join(f" There is {use}." for use in uses_of(str(path)))
        raise UserError(f"{path} does not exist.{other} {error}") from None


def is_recipe(path: Path) -> bool:
    """Whether a file is a shipped configuration itself, not a copy of one."""
    return any(path.resolve().parent == place.resolve() for place in shipped_folders("jobs/configs", "recipes"))


def copy_recipe(name: str, target: Path) -> None:
    """Copy a recipe to a file that does not exist yet.

    Raises:
        UserError: no such recipe, or the file exists.
    """
    source = find_recipe(name).path
    try:
        with target.open("x", encoding="utf-8") as file:
            text = source.read_text(encoding="utf-8")
            file.write(text.replace("$schema=", f"$schema={source.parent}/", 1))
    except FileExistsError:
        raise UserError(f"{target} exists already, and is not overwritten. Choose another file name.") from None


def _summary(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    first = next((line for line in lines if line.startswith("#") and "yaml-language-server" not in line), "#")
    return first.removeprefix("#").strip()
