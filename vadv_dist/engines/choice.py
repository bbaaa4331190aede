"""The engine for `engine.kind: auto`: the one that fits the devices and sends the fewest bytes per step."""

from dataclasses import dataclass, replace

from vadv_dist.config import EngineConfig
from vadv_dist.engines.memory import ModelSizes, memory_by_use

# The rest is for the CUDA context, the libraries' workspaces and fragments that the allocator cannot use.
_USABLE = 0.9


@dataclass(frozen=True)
class Choice:
    """An engine and, in one sentence, the reason for it.

    Attributes:
        engine: torch or deepspeed, never auto.
        reason: the arithmetic; empty if the configuration names the engine.
        fits: False if no engine fits the devices.
    """

    engine: EngineConfig
    reason: str = ""
    fits: bool = True

    @property
    def sentence(self) -> str:
        """The engine and the reason, such as `torch, because there is one device`."""
        return f"{self.engine.title}, {self.reason}" if self.reason else self.engine.title


def choose_engine(
    engine: EngineConfig, sizes: ModelSizes, world_size: int, *, bf16: bool, accumulate: int, device: int | None
) -> Choice:
    """Choose the engine of a run; a pure function, so that all ranks choose alike from the same numbers.

    One device runs plain torch. On several, the engines whose estimated memory fits 90 % of a device compete, and the
    one that sends the fewest bytes per step wins; if equal, the one that partitions least.

    Args:
        engine: the configured engine; one that is not `auto` is returned as it is.
        sizes: sizes of the model on a rank.
        world_size: number of ranks.
        bf16: whether the model computes in bf16.
        accumulate: micro-batches per step.
        device: memory of the smallest device in bytes; None if it is not known, which is taken as enough.
    """
    if engine.kind != "auto":
        return Choice(engine)
    plain = replace(engine, kind="torch")
    if world_size == 1:
        return Choice(plain, "because there is one device")
    candidates = [plain, *(replace(engine, kind="deepspeed", zero_stage=stage) for stage in (1, 2, 3))]
    need = {c: sum(memory_by_use(c, sizes, world_size, bf16=bf16).values()) for c in candidates}
    sent = {c: sent_bytes(c, sizes.trained, world_size, bf16=bf16, accumulate=accumulate) for c in candidates}
    fitting = [c for c in candidates if device is None or need[c] <= _USABLE * device]
    if not fitting:
        least = min(candidates, key=need.__getitem__)
        return Choice(
            least,
            f"which needs the least memory, about {_size(need[least])} per device; that does not fit {_size(device)}",
            fits=False,
        )
    best = min(fitting, key=sent.__getitem__)
    larger = [c for c in candidates if c not in fitting]
    room = "if it fits its device" if device is None else f"of {_size(device)}"
    facts = [f"because on {world_size} ranks it needs about {_size(need[best])} per device {room}"]
    if larger:
        facts.append("more than fits for " + " and ".join(f"{c.title} ({_size(need[c])})" for c in larger))
    others = [c for c in fitting if c is not best]
    facts.append(f"and a rank sends {_size(sent[best])} per step")
    if others:
        rival = min(others, key=sent.__getitem__)
        facts[-1] += f" ({rival.title}: {_size(sent[rival])})"
    return Choice(best, ", ".join(facts))


def sent_bytes(engine: EngineConfig, trained: int, world_size: int, *, bf16: bool, accumulate: int) -> int:
    """Bytes that each rank sends per step, as rings send them (arXiv:1910.02054, section 7).

    An all-reduce sends its tensor twice, a reduce-scatter or an all-gather once, each without the rank's own part.

    Args:
        engine: torch or deepspeed.
        trained: number of trained parameters.
        world_size: number of ranks.
        bf16: whether the model computes in bf16.
        accumulate: micro-batches per step.
    """
    value = 2 if bf16 else 4
    if engine.kind == "torch":
        passes = 2 * value
    elif engine.stage == 0:
        passes = 2 * 4  # autocast leaves gradients in fp32
    elif engine.stage == 1:
        passes = value + value  # gradients scattered, weights gathered
    elif engine.stage == 2:
        passes = 2 * value * accumulate + value  # DeepSpeed all-reduces every micro-batch's gradients
    else:
        passes = (value + 2 * value) * accumulate  # weights gathered in forward and backward
    return passes * trained * (world_size - 1) // world_size


def _size(num_bytes: int | None) -> str:
    assert num_bytes is not None
    return f"{num_bytes / 2**30:.2f} GiB" if num_bytes >= 2**28 else f"{num_bytes / 2**20:.1f} MiB"
