"""Synthetic defects for surface inspection: in-distribution and out-of-distribution augmentation."""

__version__ = "0.1.0"
