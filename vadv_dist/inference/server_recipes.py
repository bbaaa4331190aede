"""How other servers load an exported text student, and the request that returns its prediction in label units.

What they load is taken from their sources, and was not run with them:

* Text Embeddings Inference (TEI): `backends/candle/src/models/bert.rs` for the classifiers below, `backends/ort` for
  `model.onnx` with `logits`, `backends/src/lib.rs` for the Dense modules of sentence-transformers, and
  `core/src/infer.rs`, which applies a sigmoid to a single label unless `raw_scores` is set.
* vLLM: `vllm/model_executor/models/registry.py` for the classifiers below, and
  `vllm/model_executor/layers/pooler/activations.py`: for `problem_type: regression`, `/classify` applies nothing, while
  `/score` applies a sigmoid.
"""

TEI_IMAGE = "ghcr.io/huggingface/text-embeddings-inference:cpu-1.8"

_TEI = frozenset(f"{name}ForSequenceClassification" for name in ("Bert", "Roberta", "XLMRoberta", "Camembert"))
_VLLM = frozenset(f"{name}ForSequenceClassification" for name in ("Bert", "Roberta", "XLMRoberta"))

_START = """```bash
docker run -p 8080:80 -v "$PWD":/model {image} --model-id /model --dtype float32  # in this folder
```"""

_TEI_PREDICT = """```bash
curl 127.0.0.1:8080/predict -H 'Content-Type: application/json' \\
  -d '{"inputs": "what a wonderful film", "raw_scores": true, "truncate": true}'
# [{"score": <the number>, "label": "sentiment"}]
```"""

_TEI_EMBED = """```bash
curl 127.0.0.1:8080/embed -H 'Content-Type: application/json' \\
  -d '{"inputs": "what a wonderful film", "normalize": false, "truncate": true}'
# [[<the number>]]
```"""

_VLLM_CLASSIFY = """```bash
vllm serve . --runner pooling --dtype float32 --served-model-name student  # in this folder
curl 127.0.0.1:8000/classify -H 'Content-Type: application/json' \\
  -d '{"model": "student", "input": "what a wonderful film"}'
# {"data": [{"probs": [<the number>], ...}], ...}
```"""

_NOT_RUN = "According to the servers’ sources; this export was not run with them."


def recipes_of_class(architecture: str) -> list[str]:
    """Sections of a card on servers for a folder that a standard class of transformers loads.

    Args:
        architecture: the class.
    """
    parts = []
    if architecture in _TEI:
        parts += [
            f"**Text Embeddings Inference** loads `{architecture}`. Without `raw_scores`, it applies a sigmoid, and "
            "the score is not the prediction:",
            _START.format(image=TEI_IMAGE),
            _TEI_PREDICT,
        ]
    if architecture in _VLLM:
        parts += [
            f"**vLLM** loads `{architecture}`. Use `/classify`, which returns the number itself because `config.json` "
            "says `regression`. Never use `/score`, which applies a sigmoid:",
            _VLLM_CLASSIFY,
        ]
    without = [
        name for name, known in (("Text Embeddings Inference", _TEI), ("vLLM", _VLLM)) if architecture not in known
    ]
    if without:
        parts.append(f"Not known to be loaded from this folder by {' or '.join(without)}.")
    return [*parts, _NOT_RUN] if len(without) < 2 else parts


def recipes_of_onnx() -> list[str]:
    """Sections of a card on servers for an ONNX file of a text student."""
    return [
        "**Text Embeddings Inference** loads `model.onnx` on CPUs, for every encoder and pooling. Without "
        "`raw_scores`, it applies a sigmoid, and the score is not the prediction:",
        _START.format(image=TEI_IMAGE),
        _TEI_PREDICT,
        _NOT_RUN,
    ]


def recipes_of_sentence_layout(encoder: str) -> list[str]:
    """Sections of a card on servers for a folder in the layout of sentence-transformers.

    Args:
        encoder: class of the encoder.
    """
    if encoder not in {"BertModel", "RobertaModel", "XLMRobertaModel", "CamembertModel"}:
        return [f"Not known to be loaded from this folder by Text Embeddings Inference (encoder `{encoder}`)."]
    return [
        "**Text Embeddings Inference** (a version that applies several Dense modules) returns the prediction as an "
        "embedding of one number. Without `normalize: false`, it scales that number to 1 or -1:",
        _START.format(image=TEI_IMAGE),
        _TEI_EMBED,
        _NOT_RUN,
    ]
