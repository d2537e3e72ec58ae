"""Search for alpha and ddpm_ratio."""
