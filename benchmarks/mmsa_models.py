"""Train models of MMSA 2.2.1 on an export of `vadv data-export mmsa`, and write their predictions for a study.

    vadv synth data/made --num-clips 2400 --seed 1
    vadv data-export mmsa data/made made.pkl --audio face
    python benchmarks/mmsa_models.py made.pkl --models lmf tfn --seeds 1 2 3 --out predictions

Each model and seed gives `predictions/<model>-<seed>.csv` of clip_id, split and prediction, for all three splits. MMSA
keeps the epoch with the lowest validation loss, and stops after `--patience` epochs without a lower one; its own
configuration has 8. Everything else is its configuration for MOSI. Unpickling executes code: use files that you wrote.

MMSA imports easydict and nvidia-ml-py, which `make setup` installs beside it.
"""

import argparse
import csv
import pickle
import tempfile
import time
from pathlib import Path


def train(file: Path, model: str, seed: int, out: Path, patience: int | None) -> dict[str, float]:
    """Train one model, write its predictions, and return MMSA's own metrics of the test split."""
    import torch
    from MMSA.config import get_config_regression
    from MMSA.run import _run
    from MMSA.utils import setup_seed

    config = get_config_regression(model, "mosi")
    with tempfile.TemporaryDirectory() as scratch:
        config.update(
            device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
            train_mode="regression",
            custom_feature=str(file),
            feature_T="",
            feature_A="",
            feature_V="",
            model_save_path=str(Path(scratch) / "model.pth"),
            cur_seed=1,
        )
        if patience is not None:
            config["early_stop"] = patience
        with file.open("rb") as content:
            rows = len(pickle.load(content)["train"]["id"])
        # Its batch normalisation fails on a last batch of one clip.
        config["batch_size"] -= rows % config["batch_size"] == 1
        setup_seed(seed)
        found = _run(config, num_workers=0, from_sena=True)["final_results"]
    out.mkdir(parents=True, exist_ok=True)
    with (out / f"{model}-{seed}.csv").open("w", encoding="utf-8", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(["clip_id", "split", "prediction"])
        for split, results in found.items():
            rows = zip(results["Ids"], results["SResults"], strict=True)
            writer.writerows([clip_id, split, repr(float(value))] for clip_id, value in rows)
    return {name: float(value) for name, value in found["test"].items() if isinstance(value, float | int)}


def main() -> None:
    """Train what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the export")
    parser.add_argument("--models", nargs="+", default=["lmf", "tfn"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--patience", type=int, help="epochs without a lower validation loss (default: MMSA's 8)")
    parser.add_argument("--out", type=Path, default=Path("predictions"))
    options = parser.parse_args()
    for model in options.models:
        for seed in options.seeds:
            start = time.perf_counter()
            metrics = train(options.file, model, seed, options.out, options.patience)
            shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            print(f"{model} seed {seed}, {time.perf_counter() - start:.0f} s; MMSA's test metrics: {shown}", flush=True)


if __name__ == "__main__":
    main()
