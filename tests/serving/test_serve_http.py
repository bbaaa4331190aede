"""`vadv serve` over HTTP: answers, limits, messages, metrics, and how it ends."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from servers import Load, serving
from tiny_students import TEXTS

from vadv_dist.inference.predict import predict_texts


def test_answers_are_those_of_predict(served, tiny_export):
    status, answer, _ = served.ask("/predict", {"texts": TEXTS})
    assert status == 200
    assert answer["predictions"] == pytest.approx(predict_texts(tiny_export, TEXTS).tolist(), abs=1e-6)
    assert answer["truncated"] == 2  # of 11 and 14 tokens, where 10 are read
    assert answer["model"] == {
        "name": "tiny",
        "labels": {"low": -3.0, "high": 3.0, "threshold": 0.0},
        "max_tokens": 10,
        "context": 2,
    }


def test_concurrent_requests_are_batched_and_each_gets_its_own_answers(served, expected):
    asked = [[TEXTS[(start + step) % len(TEXTS)] for step in range(1 + start % 3)] for start in range(60)]
    before = batches(served)
    with ThreadPoolExecutor(20) as clients:
        answers = list(clients.map(lambda texts: served.ask("/predict", {"texts": texts}), asked))
    for texts, (status, answer, _) in zip(asked, answers, strict=True):
        assert status == 200
        assert answer["predictions"] == pytest.approx([expected(text) for text in texts], abs=1e-6)
    assert 0 < batches(served) - before < len(asked)


def batches(served) -> float:
    return metric(served, "vadv_serve_batch_texts_count")


def metric(served, name: str) -> float:
    _, page, _ = served.ask("/metrics")
    return float(re.search(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE)[1])


def test_previous_texts_are_read_after_the_text_the_nearest_first(served, expected):
    body = {"texts": ["sad", "fun"], "previous": [["the plot", "a film", "very bad"], []]}
    status, answer, _ = served.ask("/predict", body)
    assert status == 200
    whole = [expected("sad [SEP] very bad [SEP] a film"), expected("fun")]
    assert answer["predictions"] == pytest.approx(whole, abs=1e-6)
    assert whole[0] != pytest.approx(expected("sad"), abs=1e-3)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b'{"texts": ["a"', 400, "The body is not JSON: EOF"),
        (b'{"texts": ["\xff"]}', 400, "The body is not JSON"),
        (b'{"texts": ["\\ud800"]}', 400, "The body is not JSON"),
        (b"", 400, "The body is not JSON: EOF"),
        (b"[" * 5000, 400, "The body is not JSON: recursion limit"),
        (["a"], 422, 'The body is ["a"], expected an object'),
        ({"text": ["a"]}, 422, "no field 'texts'. Send for example {"),
        ({"texts": ["a"], "txts": 1}, 422, "unknown field 'txts'. Did you mean 'texts'?"),
        ({"texts": "a"}, 422, 'texts is "a", expected a list'),
        ({"texts": ["a", 5]}, 422, "texts[1] is 5, expected a string"),
        ({"texts": []}, 422, "texts has 0 texts, expected 1 to 32"),
        ({"texts": ["a"] * 33}, 422, "texts has 33 texts, expected 1 to 32"),
        ({"texts": ["a", " \n"]}, 422, "texts[1] is empty"),
        ({"texts": ["a" * 501]}, 422, "texts[0] has 501 characters, expected at most 500"),
        ({"texts": ["a", "b"], "previous": [[]]}, 422, "previous has 1 lists, expected one for each of the 2 texts"),
        ({"texts": ["a"], "previous": [["b" * 501]]}, 422, "previous[0][0] has 501 characters"),
        (b"x" * 20_001, 413, "The body has more than 20,000 bytes"),
        (b"x" * 2_000_000, 413, "The body has more than 20,000 bytes"),
    ],
)
def test_a_bad_request_gets_one_clear_message(served, body, status, message):
    found, answer, _ = served.ask("/predict", body)
    assert (found, set(answer)) == (status, {"error"})
    assert message in answer["error"]


def test_other_paths_methods_and_types_are_refused(served):
    status, answer, _ = served.ask("/predict", b"{}", headers={"Content-Type": "text/plain"})
    assert (status, answer["error"]) == (
        415,
        "Content-Type is 'text/plain', expected 'application/json'. Set this header.",
    )
    status, answer, _ = served.ask("/none")
    assert status == 404
    assert "There is no '/none' here, only /, /healthz" in answer["error"]
    status, answer, headers = served.ask("/predict")
    assert (status, headers["allow"]) == (405, "POST")
    assert answer["error"] == "/predict does not answer GET, only POST."


def test_health_metrics_and_pages(served):
    assert served.ask("/healthz")[:2] == (200, {"healthy": True})
    connection = served.connect()
    connection.request("HEAD", "/readyz")
    assert (connection.getresponse().status, connection.close()) == (200, None)
    assert served.ask("/readyz")[:2] == (200, {"ready": True})
    assert metric(served, "vadv_serve_ready") == 1
    before = metric(served, 'vadv_serve_requests_total{path="/predict",status="200"}')
    texts = metric(served, "vadv_serve_texts_total")
    served.ask("/predict", {"texts": ["a", "b"]})
    assert metric(served, 'vadv_serve_requests_total{path="/predict",status="200"}') == before + 1
    assert metric(served, "vadv_serve_texts_total") == texts + 2
    for path in ("/", "/docs"):
        status, page, headers = served.ask(path)
        assert status == 200
        assert "<form" in page
        assert not re.search(r"(src|href)=.?(https?:)?//", page)  # nothing from another host
        assert "default-src 'none'" in headers["content-security-policy"]
    _, api, _ = served.ask("/openapi.json")
    operation = api["paths"]["/predict"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["texts"]
    assert {"200", "413", "422", "503"} <= set(operation["responses"])


def test_the_printed_curl_line_works(served):
    command = shlex.split(served.greeting.split("or: ")[1])
    assert command[0] == "curl"
    address, given = command[2], dict(zip(command[3::2], command[4::2], strict=True))
    assert address == f"http://127.0.0.1:{served.port}/predict"
    name, _, value = given["-H"].partition(": ")
    status, answer, _ = served.ask("/predict", given["-d"].encode(), headers={name: value})
    assert status == 200
    assert len(answer["predictions"]) == 1


def test_sigterm_under_load_drains_without_losing_a_request(tiny_export, expected):
    with serving(tiny_export, "--drain", "1") as served, Load(served, TEXTS).running(clients=8) as load:
        wait_until(lambda: len(load.answered) > 100)
        served.process.send_signal(signal.SIGTERM)
        wait_until(lambda: served.ask("/readyz")[0] == 503)
        during = len(load.answered)
        assert served.process.wait(60) == 0
    assert load.lost == []
    assert len(load.answered) > during  # requests were still answered while it was not ready
    for text in TEXTS:
        found = {prediction for asked, prediction in load.answered if asked == text}
        assert found
        assert list(found) == pytest.approx([expected(text)] * len(found), abs=1e-6)


def wait_until(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["{folder}/none"], "none does not exist"),
        (["{export}", "--port", "{port}"], "cannot listen at 127.0.0.1:{port}: Address already in use"),
        (["{export}", "--max-texts", "9", "--queue", "4"], "--max-texts is 9, but --queue holds 4 texts"),
        (["{export}", "--timeout", "0"], "--timeout is 0, expected 0.01 to"),
    ],
)
def test_a_server_that_cannot_start_says_why(served, tiny_export, tmp_path, options, message, capsys):
    from vadv_dist.cli import main

    facts = {"folder": tmp_path, "export": tiny_export, "port": served.port}
    assert main(["serve", *(option.format(**facts) for option in options)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message.format(**facts) in said.err


def test_a_changed_export_and_a_missing_package_are_refused(tiny_export, tmp_path, capsys, monkeypatch):
    import shutil

    from vadv_dist.cli import main

    changed = shutil.copytree(tiny_export, tmp_path / "changed")
    config = json.loads((changed / "config.json").read_text())
    (changed / "config.json").write_text(json.dumps({**config, "hidden_dropout_prob": 0.2}))
    assert main(["serve", str(changed), "--port", "0"]) == 2
    assert "its SHA-256 differs" in capsys.readouterr().err
    monkeypatch.setattr("vadv_dist.serving.settings.find_spec", lambda name: None)
    assert main(["serve", str(tiny_export), "--port", "0"]) == 2
    assert 'pip install "vadv-dist[serve]"' in capsys.readouterr().err


def test_help_of_serve_imports_no_heavy_module():
    code = (
        "import sys; from vadv_dist.cli import main\n"
        "try: main(['serve', '--help'])\n"
        "except SystemExit: pass\n"
        "print({'torch', 'fastapi', 'uvicorn', 'ray', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("set()\n"), done.stdout + done.stderr
