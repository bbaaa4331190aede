"""Choices between an engine's ways to run steps."""

import pytest
import torch

from vadv_dist.config import load_config
from vadv_dist.data.sources import Sources
from vadv_dist.engines.build import compile_fault, compile_layers
from vadv_dist.engines.faults import is_compile_failure
from vadv_dist.tasks.sentiment import SentimentTask
from vadv_dist.training.splits import Splits


@pytest.mark.slow
def test_compiled_layers_give_the_same_outputs_for_all_lengths(write_config) -> None:
    config = load_config(write_config(), ["--student.dropout=0", "--student.encoder_dropout=0"])
    sources: Sources = Splits.open(config).train.sources
    task = SentimentTask(config, sources)
    task.step.eval()
    batches = [task.example(rows, tokens, torch.device("cpu")) for rows, tokens in ((3, 5), (3, 9), (2, 17))]
    with torch.no_grad():
        expected = [task.step(batch)[0] for batch in batches]
        compile_layers(task.step)
        for batch, outputs in zip(batches, expected, strict=True):
            for name, value in task.step(batch)[0].items():
                torch.testing.assert_close(value, outputs[name], rtol=1e-4, atol=1e-5)
    assert any(layer._compiled_call_impl is not None for layer in task.step.modules())
    assert all("_orig_mod" not in name for name in task.step.state_dict())


def test_a_machine_without_a_compiler_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config, exc

    with config.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}):
        fault = compile_fault(torch.device("cpu"))
    assert fault is not None
    assert exc.InvalidCxxCompiler.__name__ in fault or "compiler" in fault


def test_a_failure_to_compile_is_recognised() -> None:
    def broken(graph: object, inputs: object) -> object:
        raise AssertionError

    with pytest.raises(RuntimeError) as caught:
        torch.compile(lambda x: x + 1, backend=broken)(torch.ones(3))
    assert is_compile_failure(caught.value)
    assert not is_compile_failure(RuntimeError("other"))


@pytest.mark.gpu
def test_layers_and_optimizer_compile_on_a_gpu(gpu: torch.device, write_config) -> None:
    assert compile_fault(gpu) is None
    config = load_config(write_config(), ["--student.dropout=0", "--student.encoder_dropout=0"])
    sources: Sources = Splits.open(config).train.sources
    task = SentimentTask(config, sources)
    task.step.to(gpu).eval()
    batches = [task.example(rows, tokens, gpu) for rows, tokens in ((3, 5), (3, 9), (2, 17))]
    with torch.no_grad():
        expected = [task.step(batch)[0] for batch in batches]
        compile_layers(task.step)
        for batch, outputs in zip(batches, expected, strict=True):
            for name, value in task.step(batch)[0].items():
                torch.testing.assert_close(value, outputs[name], rtol=1e-3, atol=1e-4)
