"""The server of each kind of student, and what it answers when it is full or slow, over HTTP in this process."""

import dataclasses
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pairs import AUDIO, VISUAL, export_small, make_pair, random_vectors, unit_embeddings
from servers import serving_here
from test_serve_http import metric, wait_until
from tiny_students import TEXTS

from vadv_dist.errors import UserError
from vadv_dist.inference.export import export_run
from vadv_dist.inference.int8_cost import SAMPLE_TEXTS
from vadv_dist.inference.predict import open_text_student
from vadv_dist.serving.load import load_model, verified_service
from vadv_dist.serving.settings import ServeSettings
from vadv_dist.serving.text_model import Reading, TextModel
from vadv_dist.storage import location


class Held(TextModel):
    """A student that computes only while `go` is set."""

    go = threading.Event()

    def predict(self, readings: Sequence[Reading]) -> list[float]:
        assert self.go.wait(30)
        return super().predict(readings)


@pytest.fixture
def held(tiny_export):
    """Starts a server of the tiny student that is held, given settings."""

    def start(**limits):
        settings = ServeSettings(location(tiny_export), device="cpu", max_wait_ms=0, **limits)
        loaded = load_model(settings)
        Held.go.set()
        return serving_here(dataclasses.replace(loaded, model=Held(loaded.model.student)), settings)

    return start


def test_a_full_queue_is_503_with_the_time_to_try_again(held, expected):
    with held(queue=3, max_texts=2) as served, ThreadPoolExecutor(4) as clients:
        Held.go.clear()
        first = clients.submit(served.ask, "/predict", {"texts": TEXTS[:1]})
        wait_until(lambda: metric(served, "vadv_serve_requests_in_flight") == 2)  # it, and this question
        wait_until(lambda: metric(served, "vadv_serve_queued_texts") == 0)  # the model has it
        waiting = [clients.submit(served.ask, "/predict", {"texts": [text]}) for text in TEXTS[1:3]]
        wait_until(lambda: metric(served, "vadv_serve_queued_texts") == 2)
        status, answer, headers = served.ask("/predict", {"texts": TEXTS[3:5]})
        assert (status, answer) == (503, {"error": "The queue of 3 texts is full. Try again in 1 s."})
        assert headers["retry-after"] == "1"
        assert served.ask("/readyz")[0] == 200  # others are still answered
        Held.go.set()
        for text, answered in zip(TEXTS[:3], [first, *waiting], strict=True):
            status, answer, _ = answered.result(30)
            assert (status, answer["predictions"]) == (200, pytest.approx([expected(text)], abs=1e-6))
        assert served.ask("/predict", {"texts": TEXTS[3:5]})[0] == 200
        assert metric(served, 'vadv_serve_requests_total{path="/predict",status="503"}') == 1


def test_a_request_without_an_answer_in_time_is_504_and_its_texts_are_skipped(held):
    with held(timeout_s=0.5) as served:
        Held.go.clear()
        began = time.monotonic()
        with ThreadPoolExecutor(2) as clients:
            asked = [clients.submit(served.ask, "/predict", {"texts": TEXTS[:2]}) for _ in range(2)]
            for status, answer, headers in (each.result(30) for each in asked):
                assert status == 504
                assert answer == {"error": "The request was not answered within 0.5 s. Try again later."}
                assert headers["connection"] == "close"
        assert 0.5 <= time.monotonic() - began < 10
        Held.go.set()
        assert served.ask("/predict", {"texts": TEXTS[:1]})[0] == 200
        assert metric(served, 'vadv_serve_requests_total{path="/predict",status="504"}') == 2
        assert metric(served, "vadv_serve_texts_total") == 1


def test_an_int8_export_answers_like_its_student(tiny_export, tmp_path):
    cost = export_run(tiny_export, tmp_path / "onnx", format="onnx", int8=True).int8
    assert (cost.texts, cost.source) == (len(SAMPLE_TEXTS), "sentences that come with vadv")
    assert cost.error_fp32 is None
    assert cost.sentence() in (tmp_path / "onnx" / "README.md").read_text()
    settings = ServeSettings(location(tmp_path / "onnx"))
    loaded = load_model(settings)
    assert loaded.place == "cpu in int8 by onnxruntime"
    within = cost.largest  # a prediction in int8 also depends on the rest of its batch
    student = open_text_student(tmp_path / "onnx")
    alone = {text: float(student.predict([text])[0]) for text in [*TEXTS, "sad [SEP] fun"]}
    assert min(np.diff(sorted(alone.values()))) > 0.5 * within
    with serving_here(loaded, settings) as served, ThreadPoolExecutor(8) as clients:
        asked = [TEXTS[number % 3 : 6] for number in range(16)]
        answers = list(clients.map(lambda texts: served.ask("/predict", {"texts": texts}), asked))
        for texts, (status, answer, _) in zip(asked, answers, strict=True):
            assert status == 200
            assert answer["predictions"] == pytest.approx([alone[text] for text in texts], abs=within)
        body = {"texts": ["sad"], "previous": [["fun"]]}
        assert served.ask("/predict", body)[1]["predictions"] == pytest.approx([alone["sad [SEP] fun"]], abs=within)
    with pytest.raises(UserError, match="is in int8, so it cannot be computed in fp32"):
        load_model(dataclasses.replace(settings, precision="fp32"))
    (tmp_path / "onnx" / "model.onnx").write_bytes(b"changed")
    for check in (load_model, verified_service):
        with pytest.raises(UserError, match="its SHA-256 differs"):
            check(settings)


@pytest.fixture(scope="module")
def pair_server(tmp_path_factory):
    """A server of a small student of retrieval."""
    folder = export_small(tmp_path_factory.mktemp("pair") / "export")
    settings = ServeSettings(location(folder), max_texts=8, max_body_bytes=20_000)
    with serving_here(load_model(settings), settings) as served:
        yield served


def test_embeddings_are_those_of_the_student(pair_server):
    audio, visual = random_vectors(5, AUDIO), random_vectors(7, VISUAL, seed=1)
    wanted = dict(zip(("audio", "visual"), unit_embeddings(make_pair(), audio[:5], visual[:5]), strict=True))
    asked = [("audio", audio[:5]), ("visual", visual[:5])] * 6
    with ThreadPoolExecutor(12) as clients:
        answers = list(
            clients.map(
                lambda pair: pair_server.ask("/embed", {"modality": pair[0], "vectors": pair[1].tolist()}), asked
            )
        )
    for (modality, _), (status, answer, _) in zip(asked, answers, strict=True):
        assert status == 200
        np.testing.assert_allclose(answer["embeddings"], wanted[modality], atol=1e-5)
        assert answer["model"] == {"name": "pair", "widths": {"audio": AUDIO, "visual": VISUAL, "embedding": 11}}
    assert metric(pair_server, "vadv_serve_vectors_total") == 60
    assert metric(pair_server, "vadv_serve_batch_vectors_sum") == 60
    assert metric(pair_server, "vadv_serve_request_seconds_count") == 12


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b'{"modality": "audio", "vectors": [[NaN]]}', 422, "vectors[0][0] is NaN, expected a finite number"),
        ({"vectors": [[0.0] * AUDIO]}, 422, "no field 'modality'. Send for example {"),
        ({"modality": "text", "vectors": []}, 422, "modality is \"text\", expected 'audio' or 'visual'"),
        ({"modality": "audio", "vectors": []}, 422, "vectors has 0 vectors, expected 1 to 8 in one request"),
        ({"modality": "audio", "vectors": [[0.0] * AUDIO] * 9}, 422, "vectors has 9 vectors, expected 1 to 8"),
        ({"modality": "visual", "vectors": [[0.0] * VISUAL, [0.0]]}, 422, "vectors[1] has 1 numbers, but visual"),
        ({"modality": "audio", "vectors": [["1"] * AUDIO]}, 422, 'vectors[0][0] is "1", expected a number'),
        ({"modality": "audio", "vectors": [[1e39] * AUDIO]}, 422, "vectors[0][0] is 1e+39, which is no number of"),
        ({"texts": ["a"]}, 422, "The body has"),
        (b"x" * 20_001, 413, "The body has more than 20,000 bytes"),
    ],
)
def test_bad_vectors_get_one_clear_message(pair_server, body, status, message):
    found, answer, _ = pair_server.ask("/embed", body)
    assert (found, set(answer)) == (status, {"error"})
    assert message in answer["error"]


def test_a_retrieval_server_describes_itself(pair_server):
    status, described, _ = pair_server.ask("/model")
    assert (status, described["limits"]) == (200, {"vectors": 8, "body_bytes": 20_000})
    _, api, _ = pair_server.ask("/openapi.json")
    schema = api["paths"]["/embed"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert pair_server.ask("/embed", schema["examples"][0])[0] == 200
    status, answer, _ = pair_server.ask("/predict", {"texts": ["a"]})
    assert status == 404
    assert "only /, /embed, /healthz" in answer["error"]
    _, page, _ = pair_server.ask("/metrics")
    assert "text" not in page


def test_a_retrieval_student_stays_on_a_cpu_in_fp32(tmp_path):
    folder = export_small(tmp_path / "export")
    for options in ({"device": "cuda"}, {"precision": "bf16"}):
        with pytest.raises(UserError, match="small towers are computed on a CPU in fp32"):
            load_model(ServeSettings(location(folder), **options))
