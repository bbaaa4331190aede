"""`~` and environment variables are expanded when a configuration is loaded."""

from pathlib import Path

import pytest

from vadv_dist.config import config_from_dict, config_to_dict, load_config
from vadv_dist.config.extract_sections import ClipsConfig, ExpressionConfig, FacesConfig, ImageConfig, OutputConfig
from vadv_dist.config.places import expand
from vadv_dist.config.storage_url import resolve
from vadv_dist.errors import UserError


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("BUCKET", "clips")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("NOWHERE", raising=False)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("~", "/home/ada"),
        ("~/runs", "/home/ada/runs"),
        ("s3://$BUCKET/x", "s3://clips/x"),
        ("s3://${BUCKET}-eu/x", "s3://clips-eu/x"),
        ("$HOME/$BUCKET", "/home/ada/clips"),
        ("runs/~old", "runs/~old"),
        ("./~old", "./~old"),
        ("price$", "price$"),
        ("roberta-large", "roberta-large"),
        ("package://vadv/model", "package://vadv/model"),
    ],
)
def test_tilde_and_variables_are_expanded(written: str, meant: str) -> None:
    assert expand(written, "x") == meant


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("s3://$NOWHERE/x", r"run.storage is 's3://\$NOWHERE/x', but the environment variable 'NOWHERE' is not set"),
        ("${NOWHERE}/x", "'NOWHERE' is not set"),
        ("$EMPTY/x", "'EMPTY' is empty"),  # would otherwise write to /x
        ("${BUCKET:-x}", "'BUCKET:-x' is not set"),
        ("~no-such-user/x", r"there is no user 'no-such-user'. Write ./~no-such-user"),
    ],
)
def test_undefined_variables_and_users_are_rejected(written: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        expand(written, "run.storage")


def test_places_of_a_run_are_recorded_expanded(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "run: {storage: ~/runs}\nstudent: {encoder: $HOME/encoder}\n"
        "data: {sources: [{uri: s3://$BUCKET/a}, {uri: ~/b, name: b}]}\n"
    )
    config = load_config(path)
    assert config.run.storage == "/home/ada/runs"
    assert config.student.encoder == "/home/ada/encoder"
    assert [source.uri for source in config.data.sources] == ["s3://clips/a", "/home/ada/b"]
    assert config_from_dict(config_to_dict(config)) == config
    replaced = load_config(path, ["--data.sources=[{uri: '${BUCKET}/c'}]", "--run.storage", "~"])
    assert ([source.uri for source in replaced.data.sources], replaced.run.storage) == (["clips/c"], "/home/ada")


def test_override_replaces_a_place_that_cannot_be_expanded(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("run: {storage: $NOWHERE/runs}\n")
    with pytest.raises(UserError, match=r"run\.storage is '\$NOWHERE/runs'"):
        load_config(path)
    assert load_config(path, ["--run.storage=here"]).run.storage == "here"


def test_places_of_an_extraction_are_expanded() -> None:
    clips = ClipsConfig(csv="~/list.csv", root="s3://$BUCKET/raw")
    assert (clips.csv, clips.root, clips.mmsa) == ("/home/ada/list.csv", "s3://clips/raw", None)
    assert ClipsConfig(mmsa="$HOME/MOSI").mmsa == "/home/ada/MOSI"
    assert OutputConfig(uri="s3://$BUCKET/out").uri == "s3://clips/out"
    assert FacesConfig(path="~/yunet.onnx").path == "/home/ada/yunet.onnx"
    assert ImageConfig(encoder="~/clip").encoder == "/home/ada/clip"
    assert ExpressionConfig(encoder="~/fer.onnx").encoder == "/home/ada/fer.onnx"


def test_study_path_is_expanded_on_opening() -> None:
    assert resolve("~/studies/one.log") == "/home/ada/studies/one.log"
