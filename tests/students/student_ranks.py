"""Compute terms and gradients of every trained student on one of two gloo ranks: a script, not a test itself."""

import sys
import warnings

import torch
import torch.distributed as dist
from made_pairs import TRAINED, build, clips, rows_of

NUM_CLIPS = 24
LACKS = (3, 14)  # clips without one of their vectors
CUT = 10  # clips of the first rank: unequal parts


def batch_terms(name: str, part: slice) -> dict[str, torch.Tensor]:
    """Shares of the terms, and the gradients of their sum, of some clips of the batch of all."""
    student = build(name).eval()
    audio, visual, label = clips(NUM_CLIPS, seed=5)
    valid = torch.ones(NUM_CLIPS)
    valid[list(LACKS)] = 0
    rows = rows_of(label[part], valid[part], NUM_CLIPS - len(LACKS))
    terms = student.terms(student(audio[part], visual[part]), rows)
    torch.stack([term.double() for term in terms.values()]).sum().backward()
    gradients = {n: p.grad for n, p in student.named_parameters() if p.grad is not None}
    return {**{f"term {n}": t.detach().double() for n, t in terms.items()}, **gradients}


def main(rank: int, meeting: str, out: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    answers = {}
    for name in TRAINED:
        found = batch_terms(name, slice(0, CUT) if rank == 0 else slice(CUT, NUM_CLIPS))
        for value in found.values():
            dist.all_reduce(value)  # as engines sum
        answers[name] = found
    if rank == 0:
        torch.save(answers, out)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
