"""Hyperparameter search with Optuna: search space, sampler and shared studies. Does not depend on MLflow."""
