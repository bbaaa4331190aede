"""How many tokens batches compute per token of their texts: as the plan forms them, and padded to static shapes.

    python benchmarks/padding.py [CSV ...]    # `text` columns; MOSI's sentences, or made ones of the same lengths

Tokens are MiniLM's, or words where it is not installed. Lengths are chosen for batches of one seed and applied to those
of another.
"""

import sys
import tempfile
from pathlib import Path

from material import minilm_config, write_untrained_encoder
from predict import MOSI, read_texts

from vadv_dist.data.collate import TextField
from vadv_dist.data.plan import sample_batches
from vadv_dist.data.token_lengths import padded_length
from vadv_dist.data.tokens import Tokens
from vadv_dist.models.encoders import build_tokenizer

BATCH_SIZES, BUCKET_BATCHES, MAX_TOKENS = (4, 16, 64), 16, 100


def main(paths: list[Path]) -> None:
    """Print one row for each table and batch size."""
    with tempfile.TemporaryDirectory() as scratch:
        write_untrained_encoder(Path(scratch), minilm_config())
        tokens = Tokens(build_tokenizer(scratch), MAX_TOKENS)
    print("| texts | batch | longest text of the batch | static shapes | added | lengths |\n|---|---|---|---|---|---|")
    for path in paths:
        source, texts = read_texts(path)
        for batch_size in BATCH_SIZES:
            seen, new = (
                sample_batches(texts, batch_size=batch_size, bucket_batches=BUCKET_BATCHES, accumulate=1, seed=seed)
                for seed in (1, 2)
            )
            lengths = TextField(tokens).with_static_shapes(seen).lengths
            counts = [[len(ids) for ids in tokens.of(batch)] for batch in new]
            real = sum(map(sum, counts))
            longest = sum(len(batch) * max(batch) for batch in counts)
            static = sum(batch_size * padded_length(max(batch), lengths) for batch in counts)
            shares = f"{longest / real:.2f} | {static / real:.2f} | {1 - longest / static:.1%}"
            print(f"| {source} | {batch_size} | {shares} | {', '.join(map(str, lengths))} |")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]] or [MOSI])
