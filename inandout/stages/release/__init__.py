"""Promotion to the model registry, rollback, and export."""
