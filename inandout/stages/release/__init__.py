"""Promote to the model registry, roll back, and export."""
