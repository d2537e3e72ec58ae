"""Make the missing defects: in- and out-of-distribution augmentation for surface inspection."""

__version__ = "0.1.0"
