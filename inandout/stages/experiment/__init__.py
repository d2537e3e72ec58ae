"""Experiments: grids of classifiers, their cost, and their reports."""
