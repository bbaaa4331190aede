"""Students of the architectures that studies compare, built from tiny configs: pooling, position limits, a step."""

from pathlib import Path

import pytest
import torch

from vadv_dist.config import load_config
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.stream import BatchStream
from vadv_dist.data.synth import make_dataset
from vadv_dist.data.synth.encoder import ENCODERS
from vadv_dist.data.windows import LocalWindows
from vadv_dist.errors import UserError
from vadv_dist.models.token_limit import longest_text
from vadv_dist.objectives.base import weighted_total
from vadv_dist.tasks import build
from vadv_dist.training.splits import Splits

NAMES = {"bert": "BertModel", "roberta": "RobertaModel", "roberta-large": "RobertaModel"}
NAMES |= {"deberta-v3": "DebertaV2Model", "modernbert": "ModernBertModel"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("encoders") / "data"
    return make_dataset(out, num_clips=40, visual_shape=(2, 1, 8), face_shape=(2, 4), encoders=list(ENCODERS))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("name", ENCODERS)
def test_a_step_changes_every_student(write_config, data, name: str, pooling: str) -> None:
    folder = Path(str(data.root)) / "encoders" / name
    overrides = [f"--student.encoder={folder}", f"--student.pooling={pooling}", "--data.batch_size=8"]
    config = load_config(write_config(uri=data.root), overrides)
    splits = Splits.open(config)
    task = build(config, splits.train.sources)
    assert type(task.student.encoder).__name__ == NAMES[name]
    task.check(torch.device("cpu"))
    windows = LocalWindows(splits.train)
    plan = splits.train.plan(config.data, seed=1, epoch=0)
    batch = next(iter(BatchStream(plan=plan, windows=windows, collator=task.collator).steps())).micro[0]
    windows.close()
    optimizer = torch.optim.SGD(task.student.parameters(), lr=0.1)
    task.step.train()
    before = [parameter.detach().clone() for parameter in task.student.parameters()]
    weighted_total(task.step(batch)[1], task.weights).backward()
    optimizer.step()
    moved = [not torch.equal(a, b) for a, b in zip(before, task.student.parameters(), strict=True)]
    trained = [parameter.requires_grad for parameter in task.student.parameters()]
    assert sum(moved) >= 0.9 * sum(trained)  # rows of a bias may have no gradient, such as that of attention's keys


@pytest.mark.parametrize("name", ENCODERS)
def test_the_longest_text_fits_and_one_token_more_is_refused(write_config, data, name: str) -> None:
    folder = Path(str(data.root)) / "encoders" / name
    path = write_config(uri=data.root)
    options = [f"--student.encoder={folder}", "--objective.kind=none"]
    config = load_config(path, [*options, "--data.max_tokens=128"])
    task = build(config, Splits.open(config).train.sources)
    longest = longest_text(task.student.encoder)
    ids = torch.full((1, 128), 5)
    assert task.student.eval()(ids, torch.ones_like(ids)).isfinite().all()
    if longest is None:
        assert name == "deberta-v3"  # relative positions without a limit
        return
    assert longest == 128
    with pytest.raises(UserError, match=r"data.max_tokens is 129, but .* reads at most 128 tokens"):
        build(load_config(path, [*options, "--data.max_tokens=129"]), Splits.open(config).train.sources)


def test_an_unknown_encoder_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match=r"no encoder 'gpt' for synthetic data \(available: bert, roberta"):
        make_dataset(tmp_path / "d", num_clips=20, encoders=["gpt"])
    assert not (tmp_path / "d").exists()
