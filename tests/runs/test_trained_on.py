"""A run is scored, resumed and searched on what it was trained on, wherever that lies and wherever one stands."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from vadv_dist.config import Config, config_from_dict, config_to_dict, load_config
from vadv_dist.config.search import SearchConfig
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.sources import Sources
from vadv_dist.data.synth import make_dataset
from vadv_dist.errors import UserError
from vadv_dist.launch.driver import train
from vadv_dist.runs.encoder_identity import EncoderIdentity
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.trained_on import SourceIdentity, TrainedOn, with_absolute_places
from vadv_dist.storage import read_json
from vadv_dist.training.evaluate import evaluate_run
from vadv_dist.tuning.space_file import find_space, load_space
from vadv_dist.tuning.study_folder import StudyFolder

QUIET = Console(quiet=True)
OPTIONS = ("--objective.kind=none", "--trainer.max_steps=1")
RELATIVE = ("--data.sources=[{uri: data}]", "--student.encoder=encoder", "--run.storage=runs")


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another made data set, with an encoder of another vocabulary."""
    out = tmp_path_factory.mktemp("other") / "data"
    make_dataset(out, num_clips=60, seed=8)
    (out / "encoder" / "tokenizer_config.json").write_text("{}")
    return out


def lay_out(folder: Path, data: Path) -> None:
    """A folder that holds a data set and an encoder under the names of `RELATIVE`."""
    folder.mkdir()
    shutil.copytree(data, folder / "data")
    shutil.copytree(data / "encoder", folder / "encoder")


@pytest.fixture
def trained(tmp_path: Path, made: Path, other: Path, write_config: Callable[..., Path], monkeypatch) -> RunFolder:
    """A run that was trained in `here` under relative names; the process then stands in `there`, among others."""
    lay_out(tmp_path / "here", made)
    lay_out(tmp_path / "there", other)
    monkeypatch.chdir(tmp_path / "here")
    train(load_config(write_config(), (*OPTIONS, *RELATIVE)), QUIET)
    evaluate_run("runs/run", "test")
    monkeypatch.chdir(tmp_path / "there")
    return RunFolder(tmp_path / "here" / "runs" / "run")


def stored(folder: RunFolder) -> list[bytes]:
    return [(folder.root / name).read_bytes() for name in ("evaluation-test.json", "predictions-test.parquet")]


def fingerprint(folder: Path) -> str:
    return Dataset.open(folder).manifest.fingerprint[:12]


def test_data_and_encoder_of_the_same_relative_name_are_not_used(trained: RunFolder, made: Path) -> None:
    before = stored(trained)
    document = evaluate_run(trained.root, "test").to_json()
    assert stored(trained) == before
    assert document["data"][0]["fingerprint"] == Dataset.open(made).manifest.fingerprint
    assert document["data"][0]["uri"] == str(trained.root.parents[1] / "data")


def test_replaced_data_are_rejected_with_both_fingerprints(trained: RunFolder, made: Path, other: Path) -> None:
    before, place = stored(trained), trained.root.parents[1] / "data"
    shutil.rmtree(place)
    shutil.copytree(other, place)
    with pytest.raises(UserError, match=f"trained on {place}.*{fingerprint(made)}.*Found instead") as refusal:
        evaluate_run(trained.root, "test")
    assert fingerprint(other) in str(refusal.value)
    assert stored(trained) == before


def test_moved_data_and_encoder_are_found_at_the_given_locations(trained: RunFolder, tmp_path: Path) -> None:
    before, here = evaluate_run(trained.root, "test").to_json(), trained.root.parents[1]
    shutil.move(here / "data", tmp_path / "moved")
    with pytest.raises(UserError, match=r"give its new location with --data"):
        evaluate_run(trained.root, "test")
    shutil.move(here / "encoder", tmp_path / "encoder")
    with pytest.raises(
        UserError, match=r"with the encoder .*/here/encoder .*Found instead: .*/there/encoder .*--encoder"
    ):
        evaluate_run(trained.root, "test", data=["../moved"])
    with pytest.raises(UserError, match="/there/encoder"):
        evaluate_run(trained.root, "test", data=["../moved"], encoder="encoder")
    after = evaluate_run(trained.root, "test", data=["../moved"], encoder="../encoder").to_json()
    assert after["student"] == before["student"]


def test_copied_project_is_evaluated_by_its_relative_paths(trained: RunFolder, tmp_path: Path, monkeypatch) -> None:
    before = evaluate_run(trained.root, "test").to_json()
    shutil.move(tmp_path / "here", tmp_path / "copied")
    monkeypatch.chdir(tmp_path / "copied")
    assert evaluate_run("runs/run", "test").to_json()["student"] == before["student"]


def test_run_is_not_resumed_with_other_data_or_another_encoder(
    trained: RunFolder, write_config: Callable[..., Path]
) -> None:
    again = (*OPTIONS, *RELATIVE, f"--run.storage={trained.root.parent}")
    with pytest.raises(UserError, match=r"different data: .*/here/data .* then, .*/there/data .* now") as refusal:
        train(load_config(write_config(), again), QUIET)
    assert "a different encoder: " in str(refusal.value)


def test_run_without_a_step_does_not_block_one_on_regenerated_data(
    tmp_path: Path, made: Path, other: Path, write_config: Callable[..., Path]
) -> None:
    config = load_config(write_config(uri=tmp_path / "data"), OPTIONS)
    shutil.copytree(made, tmp_path / "data")
    folder = RunFolder.of(config)
    folder.claim(config, identity_of(config))
    shutil.rmtree(tmp_path / "data")
    shutil.copytree(other, tmp_path / "data")
    train(config, QUIET)
    recorded = folder.trained_on()
    assert recorded is not None
    assert recorded.data[0].fingerprint == Dataset.open(other).manifest.fingerprint


def test_run_resumes_with_moved_data_and_records_the_location(
    trained: RunFolder, tmp_path: Path, write_config: Callable[..., Path]
) -> None:
    here = trained.root.parents[1]
    shutil.move(here / "data", tmp_path / "moved")
    places = (f"--data.sources=[{{uri: {tmp_path / 'moved'}}}]", f"--student.encoder={here / 'encoder'}")
    train(load_config(write_config(), (*OPTIONS, *places, f"--run.storage={trained.root.parent}")), QUIET)
    recorded = trained.trained_on()
    assert recorded is not None
    assert recorded.data[0].place == str(tmp_path / "moved")
    assert (
        evaluate_run(trained.root, "test").to_json()["rows"] == read_json(trained.root / "evaluation-test.json")["rows"]
    )


def test_worker_with_other_data_on_its_disk_is_rejected(trained: RunFolder, write_config: Callable[..., Path]) -> None:
    elsewhere = load_config(write_config(), (*OPTIONS, *RELATIVE))
    with pytest.raises(UserError, match=r"started on different data: .*/here/data.*/there/data"):
        trained.require_same(identity_of(elsewhere))


def test_several_sources_keep_their_names_when_their_folders_are_renamed(
    made: Path, other: Path, tmp_path: Path, write_config: Callable[..., Path]
) -> None:
    shutil.copytree(made, tmp_path / "one")
    shutil.copytree(other, tmp_path / "two")
    sources = f"--data.sources=[{{uri: {tmp_path / 'one'}}}, {{uri: {tmp_path / 'two'}}}]"
    config = load_config(write_config(), (*OPTIONS, sources))
    train(config, QUIET)
    folder = RunFolder.of(config)
    before = evaluate_run(folder.root, "test").to_json()
    shutil.move(tmp_path / "one", tmp_path / "first")
    shutil.move(tmp_path / "two", tmp_path / "second")
    moved = [str(tmp_path / "second"), str(tmp_path / "first")]
    after = evaluate_run(folder.root, "test", data=moved).to_json()
    assert after["sources"] == before["sources"]
    assert sorted(after["sources"]) == ["one", "two"]


def test_search_is_not_resumed_with_other_data(
    trained: RunFolder, tmp_path: Path, made: Path, write_config: Callable[..., Path]
) -> None:
    there = load_config(write_config(), RELATIVE)
    same_data = [{"uri": str(tmp_path / "here" / "data")}]
    raw = config_to_dict(there)
    here = config_from_dict({**raw, "data": {**raw["data"], "sources": same_data}})
    here = config_from_dict({**config_to_dict(here), "student": {**raw["student"], "encoder": str(made / "encoder")}})
    space, _ = load_space(find_space("loss_weights"), here)
    folder = StudyFolder(tmp_path / "study")
    name = folder.claim(here, space, SearchConfig(), identity_of(here))
    (folder.trials / "0").mkdir(parents=True)
    (folder.trials / "0" / "result.json").write_text("{}")  # else there is nothing to protect
    with pytest.raises(UserError, match=r"search in .* was started on different data: .*/here/data .*/there/data"):
        folder.claim(there, space, SearchConfig(), identity_of(there))
    shutil.move(tmp_path / "here" / "data", tmp_path / "moved")
    raw = config_to_dict(here)
    moved = config_from_dict({**raw, "data": {**raw["data"], "sources": [{"uri": str(tmp_path / "moved")}]}})
    assert folder.claim(moved, space, SearchConfig(), identity_of(moved)) == name


def test_best_config_of_a_search_works_from_every_folder(
    trained: RunFolder, tmp_path: Path, write_config: Callable[..., Path], monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path / "here")
    best = with_absolute_places(load_config(write_config(), RELATIVE))
    monkeypatch.chdir(tmp_path / "there")
    recorded = trained.trained_on()
    assert recorded is not None
    assert recorded.differing(identity_of(best)) is None
    assert best.run.storage == str(trained.root.parent)
    hub = load_config(write_config(), ("--student.encoder=roberta-large", "--data.sources=[{uri: s3://b/d}]"))
    assert with_absolute_places(hub).student.encoder == "roberta-large"
    assert with_absolute_places(hub).data.sources == hub.data.sources


def test_data_set_with_other_label_semantics_is_different(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "stars")
    raw = read_json(tmp_path / "stars" / "dataset.json")
    raw["label"]["low"] = -5.0
    (tmp_path / "stars" / "dataset.json").write_text(json.dumps(raw))
    mine, theirs = (SourceIdentity.of(Dataset.open(place)) for place in (made, tmp_path / "stars"))
    assert mine.fingerprint == theirs.fingerprint
    assert not mine.is_as(theirs)
    assert mine.is_as(replace(theirs, label={}))  # not recorded by an earlier version


def test_encoder_is_identified_by_its_content(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(made / "encoder", folder)
    first = EncoderIdentity.of(str(made / "encoder"), weights=False)
    assert EncoderIdentity.of(str(folder), weights=False).is_as(first)
    config = json.loads((folder / "config.json").read_text())
    config |= {"transformers_version": "0.0", "_name_or_path": "elsewhere"}  # as another version would save it
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "README.md").write_text("notes")
    assert EncoderIdentity.of(str(folder), weights=False).is_as(first)
    (folder / "model.safetensors").write_bytes(b"weights")
    weighed = EncoderIdentity.of(str(folder), weights=True)
    assert weighed.is_as(first)  # which does not say what its weights are
    (folder / "model.safetensors").write_bytes(b"others!")
    assert not EncoderIdentity.of(str(folder), weights=True).is_as(weighed)
    vocabulary = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(vocabulary.replace('"id":', '"id" :', 1) + "\n")
    assert not EncoderIdentity.of(str(folder), weights=False).is_as(first)


def identity_of(config: Config) -> TrainedOn:
    return TrainedOn.of(config, Sources.open(config))
