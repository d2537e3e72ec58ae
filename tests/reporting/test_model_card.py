from collections.abc import Sequence

import numpy as np

from inandout.evaluation.metrics import Scored
from inandout.evaluation.operating_points import choose_point, measure_point, parse_rule
from inandout.reporting.model_card import Facts, command_line, model_card


def facts(positives: int, kinds: Sequence[str] = ()) -> Facts:
    """Return the facts of a classifier with this many validation positives and the kinds of 440 test images."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [100, positives])
    test_labels = np.repeat([0, 1], [160, 60])
    rules = ["fpr<=0.05", *(["cost 50:1"] if positives else [])]
    chosen = [choose_point(parse_rule(rule), Scored(labels, rng.normal(8 * labels)), 0.05, 0.02) for rule in rules]
    # two images of each test part
    test = Scored(
        np.repeat(test_labels, 2), np.repeat(rng.normal(8 * test_labels), 2), [str(i // 2) for i in range(440)], kinds
    )
    return Facts(
        run_id="abc",
        config={
            "data": "my parts.csv", "shot": "full", "width": 64, "height": 192, "fit": "crop",
            "backbone": "mobilenet_v2", "weights": "w.safetensors", "freeze": "norm", "head": "image",
            "epochs": 10, "optimiser": "adamw", "lr": 0.001, "batch_size": 8, "seed": 3,
            "alpha": 0.6,
        },
        params={
            "n_train_real_negatives": "384", "n_train_memseg_positives": "30", "n_train_ddpm_positives": "30",
            "n_test_negatives": "320", "n_test_positives": "120",
        },
        metrics={"ap": 0.81, "ap_low": 0.75, "ap_high": 0.87, "oracle_precision": 0.9, "oracle_recall": 0.8},
        tags={
            "inandout.survival": "90 of 96\ndefects survive", "mlflow.source.git.commit": "c0ffee",
            "inandout.weights": "beef",
        },
        data_fingerprint="d", test_fingerprint="t", data_licence="CC0", base_licence="Apache-2.0 (embedded)",
        chosen=chosen, measured=[measure_point(point, test) for point in chosen],
        commands=[command_line("classify", {"data": "my parts.csv", "reviewed": True, "alpha": None})],
    )  # fmt: skip


def test_the_card_states_data_errors_bounds_and_commands() -> None:
    card = model_card(facts(20))
    for said in (
        "Network mobilenet_v2", "initial weights w.safetensors (`beef`), frozen norm",
        "fingerprint `d`, shot full", "Real: 384 good, 0 defective.", "30 from MemSeg, 30 from diffusion (alpha 0.6)",
        "Licence of the data: CC0. Licence of the diffusion base: Apache-2.0 (embedded).",
        "320 good images of 160 physical parts, 120 defective images of 60, fingerprint `t`",
        "Average precision 0.810 (95 % 0.750 .. 0.870)",
        "`fpr<=0.05`: 0 of 60 missed: fewer than 4.9 % escape (95 %)", "0.0, at most 48.7 (0 of 60)",
        "`cost 50:1` assumes that 2.00% of all parts are defective", "90 of 96 defects survive", "commit `c0ffee`",
        "python -m inandout classify --data 'my parts.csv' --reviewed true --alpha none",
    ):  # fmt: skip
        assert said in card, said
    assert "The validation part has no real defect" not in card
    assert "batch 8, seed 3." in card


def test_the_card_names_the_training_seed() -> None:
    again = facts(20)._replace(config={**facts(20).config, "training_seed": 5})
    assert "batch 8, seed 3, training seed 5." in model_card(again)


def test_the_card_names_distances() -> None:
    without = facts(20)
    config = {**without.config, "distances": True}
    metrics = {**without.metrics, "distance_scale": 3.4, "distance_offset": 7.1}
    said = "3.4 times (d - 7.1) is added to the logit; d: distance of the worst patch to good parts."
    assert said in model_card(without._replace(config=config, metrics=metrics))
    assert "distance" not in model_card(without)


def test_the_card_warns_if_there_are_no_validation_positives() -> None:
    card = model_card(facts(0))
    assert "The validation part has no real defect" in card
    assert "0 of 0 missed" in card, "in the validation column"


def test_the_card_counts_the_escapes_of_each_kind() -> None:
    kinds = [""] * 320 + ["crack"] * 100 + ["a | b"] * 20
    rows = [line.replace(" ", "") for line in model_card(facts(20, kinds)).splitlines()]
    for rule in ("fpr<=0.05", "cost50:1"):
        assert f"|{rule}|crack|50of50|0|58.2|" in rows, "1 - 0.05 ** (1 / 50)"
        assert rf"|{rule}|a\|b|10of10|0|258.9|" in rows, "1 - 0.05 ** (1 / 10)"
    assert "Kinds with few parts have wide bounds." in model_card(facts(20, kinds))
    assert "kind of defect" not in model_card(facts(20))
