"""Pretraining of `surface-diffusion`, the embedded base."""
