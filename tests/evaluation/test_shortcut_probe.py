from functools import partial

import numpy as np
import pytest

from inandout.classifier.backbone import build_classifier
from inandout.classifier.config import BackboneConfig, FitConfig
from inandout.classifier.training import fit, predict
from inandout.data.colour import is_grey
from inandout.errors import InputError
from inandout.evaluation.shortcut_probe import (
    SIGNIFICANT_AUROC,
    Perturbation,
    Responses,
    amplified,
    jpeg,
    measure_effect,
    measure_responses,
    paste_neighbour,
    paste_nothing,
    perturbations,
    resize,
)
from inandout.reporting.shortcut_report import conclusion, effect_table
from tests.conftest import draw
from tests.diffusion.tiny import tiny_pipeline

GOOD = np.stack([draw(number, False)[0] for number in range(40)])
VAE = Perturbation("vae", "VAE of base x", lambda pixels: pixels)


def roughness(pixels: np.ndarray) -> np.ndarray:
    """Score of a classifier that learned a shortcut: smooth images are positives."""
    return -np.abs(np.diff(pixels.astype(float), axis=2)).mean(axis=(1, 2, 3))


def brightest(pixels: np.ndarray) -> np.ndarray:
    """Score of a classifier that learned the defects of this data set."""
    return (pixels.astype(float).max(axis=3) > 200).sum(axis=(1, 2)) + np.random.default_rng(0).normal(size=len(pixels))


def test_a_reaction_to_smoothness_is_significant_and_a_reaction_to_defects_is_not() -> None:
    smooth = Perturbation("vae", "VAE of base x", resize)
    threshold = float(roughness(GOOD).max()) + 1e-6
    shortcut = measure_effect(smooth, measure_responses(roughness, GOOD, smooth), threshold, 0)
    assert shortcut.is_significant()
    assert shortcut.auroc == (1, 1, 1)
    assert shortcut.rise.low > 0
    assert shortcut.called == (0, 1)
    assert "REACTS" in conclusion([shortcut])
    assert "100% are predicted as defects instead of 0%" in conclusion([shortcut])
    honest = measure_effect(smooth, measure_responses(brightest, GOOD, smooth), threshold, 0)
    assert not honest.is_significant()
    assert "No significant reaction" in conclusion([honest])
    other = measure_effect(Perturbation("jpeg", "JPEG", resize), measure_responses(roughness, GOOD, smooth), None, 0)
    assert "it also reacts to JPEG" in conclusion([honest, other])
    assert effect_table([shortcut, other]).count("\n") == 3


@pytest.mark.slow
def test_negatives_with_the_artefact_remove_the_learned_shortcut() -> None:
    good = np.stack([draw(100 + number, False)[0] for number in range(24)])
    bad = resize(np.stack([draw(200 + number, True)[0] for number in range(16)]))
    smooth, effects = Perturbation("vae", "VAE of base x", resize), []
    for synthetic_negatives in (good[:0], resize(good[:16])):
        pixels = np.concatenate([good, bad, synthetic_negatives])
        labels = np.repeat([0, 1, 0], [len(good), len(bad), len(synthetic_negatives)])
        every_epoch = np.arange(len(pixels)) >= len(good) + len(bad)
        model = build_classifier(BackboneConfig(), 0)
        fit(
            model, pixels, labels, FitConfig(epochs=4, batch_size=8, optimiser="adamw", lr=0.001), seed=0,
            every_epoch=every_epoch,
        )  # fmt: skip
        effects.append(measure_effect(smooth, measure_responses(partial(predict, model), GOOD, smooth), 0.0, 0))
    without, with_ = effects
    assert without.is_significant()
    assert with_.auroc.high < without.auroc.low
    assert with_.rise.high < without.rise.low


def test_a_perturbation_that_changes_nothing_has_no_effect() -> None:
    paste = Perturbation("paste", "MemSeg at opacity 0", paste_nothing)
    assert np.array_equal(paste_nothing(GOOD), GOOD)
    effect = measure_effect(paste, measure_responses(roughness, GOOD, paste), 0.0, 0)
    assert effect.auroc == (0.5, 0.5, 0.5)
    assert effect.rise == (0, 0, 0)
    assert effect.responses.levels == 0


@pytest.mark.parametrize(
    ("shift", "expected"),
    [(2.0, "REACTS"), (0.1, "hardly reacts"), (0.0, "No significant"), (-2.0, "a sign of good parts")],
)
def test_a_significant_effect_must_also_be_large_enough(shift: float, expected: str) -> None:
    before = np.random.default_rng(1).normal(size=400)
    effect = measure_effect(VAE, Responses(before, before + shift, 1.0), None, 0)
    assert expected in conclusion([effect])
    assert effect.is_significant() == (effect.auroc.value >= SIGNIFICANT_AUROC)


def test_the_interval_of_the_rise_is_paired() -> None:
    rng = np.random.default_rng(2)
    before = rng.normal(scale=10, size=200)
    rise = measure_effect(VAE, Responses(before, before + 1 + rng.normal(scale=0.5, size=200), 1.0), None, 0).rise
    assert rise.low < 1 < rise.high
    assert rise.high - rise.low == pytest.approx(2 * 1.96 * 0.5 / 200**0.5, rel=0.3), "independent of the spread of 10"


def test_both_intervals_miss_in_about_5_percent_without_an_effect() -> None:
    rng = np.random.default_rng(3)
    missed = np.zeros(2, int)
    for seed in range(200):
        before = rng.normal(size=60)
        after = before + rng.normal(scale=0.5, size=60)
        effect = measure_effect(VAE, Responses(before, after, 1.0), None, seed, rounds=100)
        missed += [
            not interval.low <= truth <= interval.high for interval, truth in ((effect.auroc, 0.5), (effect.rise, 0.0))
        ]
    assert (missed >= 8).all()
    assert (missed <= 22).all()


def test_every_perturbation_keeps_size_and_grey_and_the_vae_accepts_any_size() -> None:
    odd = np.random.default_rng(0).integers(0, 256, (3, 37, 35, 1), np.uint8).repeat(3, axis=3)
    coloured = odd.copy()
    coloured[..., 0] //= 2
    for perturbation in perturbations(tiny_pipeline(), "base tiny"):
        for pixels, grey in ((odd, True), (coloured, False)):
            changed = perturbation.apply(pixels)
            assert (changed.shape, changed.dtype) == (pixels.shape, np.dtype(np.uint8)), perturbation.key
            assert is_grey(changed) == grey, perturbation.key
            assert np.array_equal(changed, pixels) == (perturbation.key == "paste"), perturbation.key


def test_a_region_of_another_part_has_the_mean_of_the_old_one() -> None:
    pixels = np.random.default_rng(0).integers(60, 200, (3, 40, 36, 1), np.uint8).repeat(3, axis=3)
    pasted = paste_neighbour(pixels)
    assert is_grey(pasted)
    for before, after, neighbour in zip(pixels, pasted, np.roll(pixels, -1, axis=0), strict=True):
        changed = (before != after).any(axis=2)
        assert 0 < changed.mean() < 0.9
        shift = after[changed].astype(int) - neighbour[changed]
        assert np.ptp(shift) <= 1, "the region of the neighbour, shifted by a constant"
    assert np.array_equal(paste_neighbour(pixels[:1]), pixels[:1])


def test_jpeg_and_resize_preserve_smooth_images() -> None:
    ramp = np.linspace(60, 190, 64, dtype=np.uint8)[None, None, :, None].repeat(64, 1).repeat(3, 3)
    for perturbation in (jpeg, resize):
        assert np.abs(perturbation(ramp).astype(int) - ramp).max() <= 4


def test_too_few_images_and_non_finite_logits_are_refused() -> None:
    with pytest.raises(InputError, match="9 good parts"):
        measure_effect(VAE, Responses(np.zeros(9), np.zeros(9), 0.0), None, 0)
    with pytest.raises(InputError, match="NaN"):
        measure_effect(VAE, Responses(np.zeros(20), np.full(20, np.nan), 0.0), None, 0)


def test_an_amplified_difference_is_centred_at_grey() -> None:
    before = np.full((2, 2, 3), 100, np.uint8)
    assert np.array_equal(amplified(before, before, 16), np.full((2, 2, 3), 128))
    assert amplified(before, before + 1, 16).max() == 144
    assert amplified(before, before - 100, 16).min() == 0
