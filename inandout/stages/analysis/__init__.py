"""Analyses with a trained classifier: pool filter, distances, shortcut probe."""
