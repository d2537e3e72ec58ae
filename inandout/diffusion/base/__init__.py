"""Open the base model, a Stable Diffusion, as one pipeline."""
