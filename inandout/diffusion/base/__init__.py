"""Which Stable Diffusion is fine-tuned and sampled, opened as one pipeline."""
