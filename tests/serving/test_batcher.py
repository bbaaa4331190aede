"""The batcher alone, with a model whose batches, pace and failures a test can see and set."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from vadv_dist.serving.batcher import Batcher, BatchRecord, NoTokensError, QueueFullError
from vadv_dist.serving.text_model import Reading


@dataclass
class WordCounter:
    """Predicts the number of words, which are its tokens; it computes only while `go` is set."""

    batches: list[list[int]] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)

    def warm_up(self) -> None:
        assert not self.batches

    def read(self, texts: Sequence[str]) -> list[Reading]:
        return [Reading([len(word) for word in text.split()], len(text) > 20) for text in texts]

    def predict(self, readings: Sequence[Reading]) -> list[float]:
        assert self.go.wait(10)
        if any(13 in reading.token_ids for reading in readings):
            raise ValueError("a word of 13 letters")
        self.batches.append([len(reading.token_ids) for reading in readings])
        return [float(number) for number in self.batches[-1]]


def run(test, **options) -> WordCounter:
    """Run a test with a batcher, which is closed afterwards."""

    async def inside() -> WordCounter:
        model = WordCounter()
        model.go.set()
        batcher = Batcher(model, **{"batch_tokens": 8, **options})
        await batcher.start()
        await asyncio.wait_for(test(batcher, model), 20)
        model.go.set()
        await batcher.close()
        return model

    return asyncio.run(inside())


async def gathered(batcher: Batcher, model: WordCounter, requests: Sequence[list[str]]) -> list:
    """Answers of requests that arrive while a first one is computed."""
    model.go.clear()
    first = asyncio.create_task(batcher.predict(["first"]))
    await asyncio.sleep(0.1)  # the model has it
    tasks = [asyncio.create_task(batcher.predict(texts)) for texts in requests]
    await asyncio.sleep(0.02)
    model.go.set()
    await first
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_what_arrives_during_a_batch_forms_the_next_ones_up_to_the_bound():
    records: list[BatchRecord] = []

    async def test(batcher, model):
        answers = await gathered(batcher, model, [["a a a", "b b"], ["c c c"], ["d d d d", "e"]])
        assert [answer.results for answer in answers] == [[3, 2], [3], [4, 1]]
        assert [answer.num_tokens for answer in answers] == [5, 3, 5]

    model = run(test, observe=records.append)
    assert model.batches == [[1], [3, 2, 3], [4, 1]]
    assert [(record.num_items, record.num_tokens) for record in records] == [(1, 1), (3, 8), (2, 5)]


def test_a_text_above_the_bound_is_computed_alone():
    async def test(batcher, model):
        answers = await gathered(batcher, model, [["a"], ["w " * 9 + "long"], ["b"]])
        assert [answer.results for answer in answers] == [[1], [10], [1]]
        assert [answer.num_truncated for answer in answers] == [0, 1, 0]

    assert run(test).batches == [[1], [1], [10], [1]]


def test_an_idle_model_waits_for_more_texts_but_not_for_a_full_batch():
    async def test(batcher, model):
        loop = asyncio.get_running_loop()
        began = loop.time()
        waiting = asyncio.create_task(batcher.predict(["a"]))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await batcher.predict(["b " * 7])  # 8 tokens with the first
        assert loop.time() - began < 5
        assert (await waiting).results == [1]

    assert run(test, max_wait_s=10).batches == [[1, 7]]


def test_only_the_request_that_causes_a_failure_fails():
    async def test(batcher, model):
        good, bad, other = await gathered(batcher, model, [["a a"], ["b", "thirteenchars"], ["c"]])
        assert (good.results, other.results) == ([2], [1])
        assert isinstance(bad, ValueError)
        assert batcher.is_healthy()
        with pytest.raises(NoTokensError) as error:
            await batcher.predict(["a", " "])
        assert error.value.place == 1

    run(test)


def test_a_model_that_always_fails_is_not_healthy():
    async def test(batcher, model):
        for _ in range(3):
            assert batcher.is_healthy()
            with pytest.raises(ValueError, match="13 letters"):
                await batcher.predict(["thirteenchars"])
        assert batcher.problem() == "the last 3 batches failed"
        await batcher.predict(["a"])
        assert batcher.is_healthy()

    run(test)


def test_a_full_queue_refuses_and_cancelled_requests_are_not_computed():
    async def test(batcher, model):
        model.go.clear()
        first = asyncio.create_task(batcher.predict(["first"]))
        await asyncio.sleep(0.1)  # the model has it
        waiting = asyncio.create_task(batcher.predict(["a a", "b b"]))
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError) as error:
            await batcher.predict(["c"] * 3)
        assert error.value.retry_after_s >= 1
        waiting.cancel()
        last = asyncio.create_task(batcher.predict(["c c c"]))
        await asyncio.sleep(0.02)
        model.go.set()
        assert (await first).results == [1]
        assert (await last).results == [3]
        assert batcher.num_queued == 0

    assert run(test, max_queued=4).batches == [[1], [3]]


def test_closing_answers_what_waits_and_refuses_more():
    async def test(batcher, model):
        model.go.clear()
        tasks = [asyncio.create_task(batcher.predict([f"{'w ' * n}"])) for n in (1, 5, 6)]
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0.02)
        with pytest.raises(QueueFullError):
            await batcher.predict(["late"])
        model.go.set()
        await closing
        assert [task.result().results for task in tasks] == [[1], [5], [6]]

    run(test)
