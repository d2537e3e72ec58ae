"""Metrics, operating points, paired tests and distances between sets of images."""
