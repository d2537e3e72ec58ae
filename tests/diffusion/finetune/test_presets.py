from inandout.diffusion.finetune.presets import N_NEGATIVES, PRESETS


def test_the_presets_of_stable_diffusion_are_the_papers() -> None:
    """Sections 5.1 and 5.2."""
    found = {shot: PRESETS["sd", shot] for shot in ("zero", "few", "full")}
    assert {shot: preset.epochs for shot, preset in found.items()} == {"zero": 5, "few": 49, "full": 25}
    assert {(p.lr, p.n_prior) for p in found.values()} == {(1e-5, 200)}
    assert N_NEGATIVES == 50
