from inandout.diffusion.finetune.presets import N_NEGATIVES, PRESETS


def test_the_presets_of_stable_diffusion_are_the_papers() -> None:
    """Sections 5.1 and 5.2."""
    found = {shot: PRESETS["sd", shot] for shot in ("zero", "few", "full")}
    assert {shot: (p.epochs, p.alpha) for shot, p in found.items()} == {
        "zero": (5, 0.60), "few": (49, 0.95), "full": (25, 0.80)
    }  # fmt: skip
    assert {(p.lr, p.n_prior) for p in found.values()} == {(1e-5, 200)}
    assert all(p.inpaint_alpha == p.alpha for p in found.values())
    assert found["zero"].defects == ("cracked", "scratched")
    assert found["few"].defects == found["full"].defects == ("",)
    assert N_NEGATIVES == 50
