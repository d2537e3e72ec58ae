"""Metrics, operating points, paired tests, distances between image sets, filters and probes."""
