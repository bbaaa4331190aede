"""Whether the engine that a configuration names works here: two steps of a toy model on it, in a process of its own.

`vadv doctor` starts it. A process of its own, because building DeepSpeed makes a process group, picks an accelerator
for good and may end in C++.
"""

import json
import subprocess
import sys
import traceback

from vadv_dist.config import Config, config_from_dict, config_to_dict
from vadv_dist.errors import VadvError

_TIME_LIMIT_S = 180
_ANSWER = "vadv-engine-check:"


def check_engine(config: Config) -> tuple[bool, str]:
    """Build the configured engine on a toy model, train two steps, and save and reload its state.

    Returns:
        whether it worked; and what it ran on, or what failed.
    """
    command = [sys.executable, "-m", __name__]
    try:
        done = subprocess.run(
            command, input=json.dumps(config_to_dict(config)), capture_output=True, text=True, timeout=_TIME_LIMIT_S
        )
    except subprocess.TimeoutExpired:
        return False, f"two steps of a toy model did not finish within {_TIME_LIMIT_S} s"
    for line in done.stdout.splitlines():
        if line.startswith(_ANSWER):
            works, found = json.loads(line.removeprefix(_ANSWER))
            return bool(works), str(found)
    last = (done.stderr.strip() or "without a message").splitlines()[-1]
    return False, f"the process ended with exit code {done.returncode}: {last[:300]}"


def _try(config: Config) -> str:
    """Two updates, then the whole state once out and in; raises whatever fails."""
    import torch
    from torch import nn

    from vadv_dist.data.schema import Batch
    from vadv_dist.engines.build import build_engine
    from vadv_dist.engines.distributed import Distributed, choose_device, choose_dtype
    from vadv_dist.formats.tensor_parts import HeldTensors, whole_tensors
    from vadv_dist.tasks.base import Outputs, ParameterGroup, Terms, TrainingStep

    class Toy(TrainingStep):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))

        def forward(self, batch: Batch, *, with_terms: bool = True) -> tuple[Outputs, Terms]:
            # ZeRO with bf16 gives the model weights in bf16.
            y = self.layers(batch.fields["x"].to(next(self.parameters()).dtype)).float()
            return {"y": y}, {"loss": (y - 1).square().mean()}

    torch.manual_seed(1)
    device = choose_device(config.trainer.use_gpu)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed, model = Distributed(device=device), Toy()
    names, parameters = zip(*model.named_parameters(), strict=True)
    groups = [ParameterGroup("toy", list(names), list(parameters), lr=0.1, weight_decay=0.0)]
    engine = build_engine(config, model, groups, distributed)
    before = whole_tensors(engine.weights())
    ones = torch.ones(4, device=device)
    batch = Batch(
        fields={"x": torch.randn(4, 8, device=device)},
        present={},
        label=ones,
        valid=ones,
        row_id=torch.arange(4, device=device),
        counts={"rows": torch.tensor(4, device=device)},
    )
    for _ in range(2):
        batches = [batch] * config.trainer.accumulate
        _, norm = engine.step(batches, lambda _: {"loss": 1.0}, 1.0, weights_known=True)
    after, moments = whole_tensors(engine.weights()), whole_tensors(engine.moments())
    if not bool(norm.isfinite()) or not all(bool(tensor.isfinite().all()) for tensor in after.values()):
        raise ArithmeticError("weights or the gradient's norm are not finite after two steps")
    if any(torch.equal(before[name], after[name]) for name in before):
        raise ArithmeticError("some weights do not change in two steps")
    engine.load(HeldTensors(after), HeldTensors(moments), 2)
    again = whole_tensors(engine.weights())
    if not all(torch.equal(after[name], again[name]) for name in after):
        raise ArithmeticError("saved and reloaded weights differ")
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return f"{where}, {str(choose_dtype(config.trainer, device)).removeprefix('torch.')}"


def main() -> None:
    """Read a configuration from standard input; print one line: whether it worked, and what was found."""
    config = config_from_dict(json.load(sys.stdin))
    try:
        answer = True, _try(config)
    except VadvError as error:
        answer = False, str(error)
    except Exception as error:
        traceback.print_exc()
        said = next((line for line in str(error).splitlines() if line.strip()), "")
        answer = False, f"{type(error).__name__}: {said[:300]}"
    print(_ANSWER + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
