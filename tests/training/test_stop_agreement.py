"""All ranks stop after the same step, with little communication."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from vadv_dist.engines.distributed import Distributed
from vadv_dist.training.stop_agreement import StopAgreement


@dataclass
class Exchange:
    """Sums what two threads bring."""

    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(2, timeout=60))
    values: dict[int, torch.Tensor] = field(default_factory=dict)
    count: int = 0


class Rank(Distributed):
    """One of two ranks, which are threads."""

    exchange: Exchange

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        exchange = self.exchange
        exchange.values[self.rank] = values
        if exchange.barrier.wait() == 0:
            exchange.count += 1
        total = torch.stack(list(exchange.values.values())).sum(0)
        exchange.barrier.wait()
        return total


def stops_at(asked: tuple[Callable[[int], bool], Callable[[int], bool]], calls: int) -> tuple[list[int | None], int]:
    """The call after which each of two ranks stops, and the number of exchanges."""
    exchange = Exchange()
    stopped: list[int | None] = [None, None]

    def work(rank: int) -> None:
        distributed = Rank(rank, 2)
        object.__setattr__(distributed, "exchange", exchange)
        at = 0
        agreement = StopAgreement(distributed, lambda: asked[rank](at))
        for at in range(calls):
            if agreement():
                stopped[rank] = at
                return

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return stopped, exchange.count


def never(at: int) -> bool:
    return False


def test_a_single_rank_stops_immediately() -> None:
    asked = iter([False, False, True])
    agreement = StopAgreement(Distributed(), lambda: next(asked))
    assert [agreement() for _ in range(3)] == [False, False, True]


def test_ranks_stop_at_the_same_call_soon_after_rank_0_was_asked() -> None:
    for when in (0, 5, 100):
        [first, second], _ = stops_at((lambda at, when=when: at >= when, never), 100_000)
        assert first == second
        assert first is not None
        assert when <= first <= 3 * when + 1  # the distance of exchanges doubles at most


def test_only_rank_0_can_stop_the_ranks() -> None:
    assert stops_at((never, lambda at: True), 1000)[0] == [None, None]


def test_exchanges_are_rare_if_calls_are_fast() -> None:
    _, exchanges = stops_at((never, never), 100_000)
    assert exchanges < 60  # the distance doubles up to half a second's calls
