"""Learning rates by layer of the student's encoder."""

from pathlib import Path

import pytest
import torch
import transformers
from pydantic import ValidationError
from rich.console import Console
from torch import nn

from vadv_dist.config import OptimizerConfig, load_config
from vadv_dist.errors import UserError
from vadv_dist.launch.driver import train
from vadv_dist.runs.checkpoint import list_checkpoints
from vadv_dist.runs.folder import RunFolder
from vadv_dist.tasks.parameter_groups import layer_depths, parameter_groups
from vadv_dist.tasks.sentiment import SentimentTask
from vadv_dist.training.splits import Splits

TINY = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}


def rates(encoder: nn.Module, optimizer: OptimizerConfig, *, pretrained: bool = True) -> dict[str, tuple[float, float]]:
    """Rate and weight decay by name, of an encoder and a head beside it."""
    model = nn.ModuleDict({"student": nn.ModuleDict({"encoder": encoder, "dense": nn.Linear(2, 2)})})
    groups = parameter_groups(model.named_parameters(), optimizer, pretrained=pretrained)
    named = {name: (group.lr, group.weight_decay) for group in groups for name in group.names}
    assert sum(len(group.names) for group in groups) == len(named) == len(dict(model.named_parameters()))
    return {name.removeprefix("student."): value for name, value in named.items()}


def test_each_layer_has_its_own_learning_rate() -> None:
    with torch.device("meta"):
        encoder = transformers.AutoModel.from_config(transformers.BertConfig(**TINY), add_pooling_layer=False)
    found = rates(encoder, OptimizerConfig(lr=1.0, new_module_lr_factor=8.0, layer_decay=0.5, weight_decay=0.1))
    assert found["encoder.embeddings.word_embeddings.weight"] == (0.125, 0.1)
    assert found["encoder.embeddings.LayerNorm.weight"] == (0.125, 0.0)
    for layer, rate in enumerate((0.25, 0.5, 1.0)):
        assert found[f"encoder.encoder.layer.{layer}.attention.self.query.weight"] == (rate, 0.1)
        assert found[f"encoder.encoder.layer.{layer}.output.dense.bias"] == (rate, 0.0)
    assert found["dense.weight"] == (8.0, 0.1)


def test_without_layer_decay_there_are_at_most_four_groups() -> None:
    with torch.device("meta"):
        encoder = transformers.AutoModel.from_config(transformers.BertConfig(**TINY), add_pooling_layer=False)
    found = rates(encoder, OptimizerConfig(lr=1.0, new_module_lr_factor=8.0, weight_decay=0.1))
    assert {value for name, value in found.items() if name.startswith("encoder")} == {(1.0, 0.1), (1.0, 0.0)}
    assert {value for name, value in found.items() if name.startswith("dense")} == {(8.0, 0.1), (8.0, 0.0)}


def test_layer_decay_of_an_untrained_encoder_starts_at_the_rate_of_new_weights() -> None:
    with torch.device("meta"):
        encoder = transformers.AutoModel.from_config(transformers.BertConfig(**TINY), add_pooling_layer=False)
    found = rates(encoder, OptimizerConfig(lr=1.0, new_module_lr_factor=8.0, layer_decay=0.5), pretrained=False)
    assert found["encoder.encoder.layer.2.output.dense.bias"][0] == 8.0
    assert found["encoder.encoder.layer.0.output.dense.bias"][0] == 2.0


@pytest.mark.parametrize(
    ("config", "depths"),
    [
        (
            transformers.DistilBertConfig(vocab_size=40, dim=16, n_layers=2, n_heads=2, hidden_dim=32),
            {"embeddings.word_embeddings.weight": 2, "transformer.layer.0.ffn.lin1.bias": 1},
        ),
        (
            transformers.ModernBertConfig(**TINY, global_attn_every_n_layers=1, pad_token_id=0),
            {"embeddings.tok_embeddings.weight": 3, "layers.0.mlp.Wi.weight": 2, "final_norm.weight": 0},
        ),
    ],
    ids=["distilbert", "modernbert"],
)
def test_layers_are_found_in_other_encoders(config, depths: dict[str, int]) -> None:
    with torch.device("meta"):
        encoder = transformers.AutoModel.from_config(config)
    found = layer_depths([name for name, _ in encoder.named_parameters()])
    assert {name: found[name] for name in depths} == depths
    assert min(found.values()) == 0


def test_encoder_without_layers_is_rejected() -> None:
    with pytest.raises(UserError, match=r"have no layer numbers\. Set optimizer.layer_decay: 1"):
        rates(nn.Linear(2, 2), OptimizerConfig(layer_decay=0.9))
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        OptimizerConfig(layer_decay=1.5)


def test_a_first_step_moves_each_layer_by_its_rate(write_config, tmp_path: Path) -> None:
    # Adam's first step is the rate times the gradient's sign, so the largest move of a parameter is its rate.
    options = ["--optimizer.layer_decay=0.25", "--optimizer.warmup_steps=0", "--optimizer.weight_decay=0"]
    config = load_config(write_config(), [*options, "--trainer.max_steps=1", "--optimizer.clip_norm=null"])
    task = SentimentTask(config, Splits.open(config).train.sources)
    before = {name: value.clone() for name, value in task.step.state_dict().items()}
    train(config, Console(quiet=True, stderr=True))
    after = list_checkpoints(RunFolder.of(config).checkpoints)[-1].weights()
    moved = {name: float((after[name] - value).abs().max()) for name, value in before.items()}
    (top,) = {group.lr for group in task.parameter_groups() if group.name == "new"}
    layers = {int(name.split(".")[4]) for name in moved if name.startswith("student.encoder.encoder.layer.")}
    for name, move in moved.items():
        parts = name.split(".")
        if name.startswith("student.encoder.encoder.layer.") and name.endswith("output.dense.weight"):
            assert move == pytest.approx(top * 0.25 ** (max(layers) - int(parts[4])), rel=1e-3)
        if name == "student.encoder.embeddings.word_embeddings.weight":
            assert move == pytest.approx(top * 0.25 ** (max(layers) + 1), rel=1e-3)


def test_an_adversary_has_a_group_with_its_own_rate(write_config) -> None:
    options = ["--objective.kind=amid", "--objective.adversary_lr=0.02", "--objective.width=8"]
    task = SentimentTask(config := load_config(write_config(), options), Splits.open(config).train.sources)
    groups = task.parameter_groups()
    own = [group for group in groups if group.lr == 0.02]
    assert {group.name for group in own} == {"adversary", "adversary_no_decay"}
    names = {name for group in own for name in group.names}
    assert names == {
        name for name, _ in task.step.named_parameters() if name.startswith("objective.distillation.adversary.")
    }
    assert len(names) == 4
