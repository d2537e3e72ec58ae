"""Choose a training recipe without synthetic defects on the validation part, and measure it on the test part.

Runs `classify` with seed 0 for every recipe and prints the validation AP only. The test AP is printed for the recipe
with the highest validation AP, once for each of `--seeds`. Runs are stored in MLflow in the current folder; finished
ones are reused. A recipe is a comma-separated list of options of `classify`; `size` sets width and height.

    python benchmarks/recipe.py --data tiles.csv --weights mobilenet_v2.safetensors --seeds 0,1 \
        --recipe size=160,freeze=norm,lr=0.0003,epochs=8,batch_size=16 --recipe size=224,freeze=all,lr=0.003,epochs=30
"""

import argparse
import time

import mlflow

from inandout.data.prepare import read_data
from inandout.reporting.tables import aligned
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.train import classify
from inandout.tracking.store import connect


def parse(recipe: str, data: str, backbone: str, weights: str) -> ClassifyConfig:
    """Return the configuration of a recipe with seed 0."""
    options = dict(part.split("=", 1) for part in recipe.split(","))
    size = options.pop("size")
    shared = {"data": data, "backbone": backbone, "weights": weights, "n_aug": 0, "fit": "stretch"}
    return ClassifyConfig.from_flat(**shared | {"width": size, "height": size} | options)


def validation_curve(run_id: str) -> list[float]:
    """Return the validation AP after each epoch."""
    history = mlflow.MlflowClient().get_metric_history(run_id, "val_ap")
    return [metric.value for metric in sorted(history, key=lambda metric: metric.step) if metric.step > 0]


def main() -> None:
    """Print a table of validation APs, then a table of test APs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--recipe", action="append", required=True)
    parser.add_argument("--seeds", default="", help="measure the best recipe on the test part with these seeds")
    options = parser.parse_args()
    connect()
    data = read_data(options.data)
    found: dict[str, float] = {}
    lines = [["recipe", "validation AP", "per epoch", "minutes"]]
    for recipe in options.recipe:
        result = classify(parse(recipe, options.data, options.backbone, options.weights), data)
        curve = validation_curve(result.run_id)
        found[recipe] = curve[-1]
        minutes = result.metrics["seconds_training"] / 60
        lines.append([recipe, f"{curve[-1]:.3f}", " ".join(f"{ap:.3f}" for ap in curve), f"{minutes:.1f}"])
        print(time.strftime("%H:%M"), result.run_id, *lines[-1], flush=True)
    print(aligned(lines))
    best = max(found, key=lambda recipe: found[recipe])
    for seed in (int(part) for part in options.seeds.split(",") if part):
        config = parse(best, options.data, options.backbone, options.weights).model_copy(update={"seed": seed})
        result = classify(config, data)
        values = [f"{name} {result.metrics[name]:.3f}" for name in ("val_ap", "ap", "ap_low", "ap_high")]
        print(time.strftime("%H:%M"), result.run_id, best, f"seed {seed}:", ", ".join(values), flush=True)


if __name__ == "__main__":
    main()
