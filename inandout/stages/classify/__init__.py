"""Training a classifier, and what other stages need of a trained one."""
