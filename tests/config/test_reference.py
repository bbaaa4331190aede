"""Help, schema and documentation agree with the configuration's sections."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from vadv_dist.cli import main
from vadv_dist.config import Config, config_to_dict, load_config
from vadv_dist.config.recipes import list_recipes
from vadv_dist.config.reference import KINDS, json_schema, list_fields, write
from vadv_dist.config.shape import fields_of, kinds_of, tree, walk

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_every_kind_has_a_description(kind: str) -> None:
    fields = [(name, field) for name, field in walk(tree(KINDS[kind])) if "const" not in field]
    assert [name for name, field in fields if not kinds_of(field) and not field.get("description")] == []


def test_generated_files_are_current(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for folder in ("configs", "studies", "workflows"):
        (tmp_path / "jobs" / folder).mkdir(parents=True)
    write(tmp_path)
    for path in tmp_path.rglob("*.*"):
        if path.is_file():
            assert (ROOT / path.relative_to(tmp_path)).read_text() == path.read_text(), "run `make docs`"


@pytest.mark.parametrize("recipe", list_recipes(), ids=lambda recipe: recipe.name)
def test_recipes_validate_against_their_schema(recipe) -> None:
    first = recipe.path.read_text().splitlines()[0]
    schema = json.loads((recipe.path.parent / first.partition("$schema=")[2]).read_text())
    jsonschema.validate(yaml.safe_load(recipe.path.read_text()), schema, jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("raw", "is_valid"),
    [
        ({"objective": {"weighting": "famo"}}, True),
        ({"objective": {"weighting": {"kind": "famo", "lr": 0.1}}}, True),
        ({"objective": {"weighting": {"kind": "famo", "temperature": 0.1}}}, False),
        ({"objective": {"kind": "none"}}, True),
        ({"objective": "none"}, True),
        ({"objective": {"kind": "none", "psi": 1.0}}, False),
        ({"trainer": {"epochs": "many"}}, False),
        ({"trainer": {"epoch": 3}}, False),
        ({"data": {"sources": [{"uri": "a", "weight": 2}], "mixing": "repeats"}}, True),
        ({"data": {"sources": [{"weight": 2}]}}, False),
    ],
)
def test_schema_and_loader_accept_the_same_configurations(tmp_path: Path, raw: dict, is_valid: bool) -> None:
    validator = jsonschema.Draft202012Validator(json_schema(Config))
    assert validator.is_valid(raw) == is_valid
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(raw))
    code = main(["train", "--config", str(tmp_path / "c.yaml"), "--print_config"])
    assert (code == 0) == is_valid


def test_documented_defaults_match_the_sections() -> None:
    plain = config_to_dict(Config())
    for name, node in fields_of(tree(Config)).items():
        for field in list_fields(node, f"{name}."):
            value = plain
            for part in field.name.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if not field.kinds:
                assert field.default == json.dumps(value).strip('"'), field.name


def test_train_help_lists_every_field_and_does_not_import_torch() -> None:
    code = "import sys; from vadv_dist.cli import main; main(['train', '--help'])"
    checked = f"try:\n {code}\nfinally:\n print('torch' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", checked], capture_output=True, text=True)
    assert done.stderr == "False\n"
    assert max(map(len, done.stdout.splitlines())) <= 80
    for name, field in walk(tree(Config)):
        if "." in name and not kinds_of(field):
            assert f"--{name}=" in done.stdout


def test_config_accepts_the_name_of_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config("mosi", []).student.encoder == "roberta-large"
    (tmp_path / "mosi").write_text("student: {encoder: bert-base-uncased}")
    assert load_config("mosi", []).student.encoder == "bert-base-uncased"
    assert main(["train", "--config", "mosj", "--print_config"]) == 2
    assert "mosj does not exist. There is no recipe 'mosj'" in capsys.readouterr().err
    assert main(["train", "--config", "mosi.yaml", "--print_config"]) == 2  # a file that one has forgotten to make
    assert "mosi.yaml does not exist." in capsys.readouterr().err
    assert main(["recipes", "copy", "mosi", "mine.yaml"]) == 0
    first = (tmp_path / "mine.yaml").read_text().splitlines()[0]
    assert Path(first.partition("$schema=")[2]).is_file()


def test_schema_command_prints_a_json_schema(capsys) -> None:
    assert main(["config", "schema", "--kind", "search"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"]["sampler"]["enum"] == ["tpe", "random", "nsga2"]
