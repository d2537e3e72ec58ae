"""The search for alpha and ddpm_ratio."""
