"""`vadv extract` on the command line: configs, user errors, exit codes, recipes."""

import json
from pathlib import Path

import pytest
import yaml
from lists import bad_list

from vadv_dist.cli import main
from vadv_dist.config.extract_sections import ExtractConfig
from vadv_dist.config.load import config_to_yaml, load_sections
from vadv_dist.config.recipes import list_recipes
from vadv_dist.errors import UserError


@pytest.fixture
def config(configure, tmp_path: Path) -> Path:
    path = tmp_path / "extract.yaml"
    path.write_text(config_to_yaml(configure(bad_list(tmp_path / "clips"))))
    return path


def test_too_many_rejected_clips_exit_with_code_2_and_one_message(config: Path, capsys) -> None:
    assert main(["extract", "--config", str(config)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.strip().splitlines()[-1].startswith("vadv: 7 of 15 clips")
    assert "Traceback" not in said.err
    assert main(["extract", "--config", str(config), "--output.max_rejected=0.5", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["clips_listed"], document["clips_written"]) == (15, 8)
    assert sum(document["rejected"].values()) == 7


def test_another_extraction_replaces_the_data_set_if_it_should(config: Path, tmp_path: Path, capsys) -> None:
    command = ["extract", "--config", str(config), "--output.max_rejected=0.5"]
    assert main(command) == 0
    manifest = tmp_path / "out" / "dataset.json"
    first = manifest.read_bytes()
    assert main([*command, "--overwrite"]) == 0
    assert manifest.read_bytes() == first, "the same extraction is complete"
    assert main([*command, "--frames.visual=3"]) == 2
    assert "with another list or configuration" in capsys.readouterr().err
    assert main([*command, "--frames.visual=3", "--overwrite"]) == 0
    assert json.loads(manifest.read_text())["provenance"]["options"]["frames"]["visual"] == 3
    assert [path.name for path in tmp_path.glob(".*.earlier")] == []


def test_the_printed_config_is_the_resolved_one(config: Path, capsys) -> None:
    assert main(["extract", "--config", str(config), "--print_config", "--image.tokens=patches"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["image"]["tokens"] == "patches"
    config.write_text(yaml.safe_dump(printed))
    assert config_to_yaml(load_sections(ExtractConfig, config)) == yaml.safe_dump(printed, sort_keys=False)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--faces.marign=1", "Did you mean 'margin'?"),
        ("--face.margin=1", "Did you mean 'faces'?"),
        ("--image.tokens=all", "image.tokens"),
        ("--frames.visual=0", "frames.visual is 0, expected an integer of at least 1"),
        ("--output.max_rejected=2", "expected a number of at least 0 and up to 1"),
        ("--faces.kind=yunet", "faces.path is None, expected the YuNet .onnx file"),
        ("--image.encoder=null", "nothing would be extracted"),
        ("--prompts.template=face", "expected a sentence that contains {class}"),
        ("--compute.use_gpu=true", "finds no GPU"),
    ],
)
def test_an_invalid_config_is_one_message(config: Path, capsys, override: str, message: str) -> None:
    import torch

    if override == "--compute.use_gpu=true" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert main(["extract", "--config", str(config), override]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""


def test_recipes_list_their_command(capsys) -> None:
    commands = {recipe.name: recipe.command for recipe in list_recipes()}
    assert commands["extract-raw"] == commands["extract-mmsa"] == "extract"
    assert commands["mosi"] == commands["demo"] == "train"
    assert main(["recipes"]) == 0
    assert "extract-raw        extract  Raw clips to the paper's features" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["extract-raw", "extract-mmsa"])
def test_shipped_recipes_are_valid(name: str, capsys, tmp_path: Path) -> None:
    [recipe] = [recipe for recipe in list_recipes() if recipe.name == name]
    config = load_sections(ExtractConfig, recipe.path)
    assert (config.frames.visual, config.frames.face, config.expression.num_scores) == (8, 64, 8)
    assert main(["recipes", "copy", name, str(tmp_path / "mine.yaml")]) == 0
    assert f"vadv extract --config {tmp_path / 'mine.yaml'}" in capsys.readouterr().out
    with pytest.raises(UserError, match="is the config of a run, but this command reads the config of an extraction"):
        load_sections(ExtractConfig, next(r.path for r in list_recipes() if r.name == "mosi"))
