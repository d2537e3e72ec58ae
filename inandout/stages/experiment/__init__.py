"""Experiments: grids of classifiers, cost estimates and reports."""
