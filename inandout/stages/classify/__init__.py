"""Train a classifier, and read trained classifiers."""
