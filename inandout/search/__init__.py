"""Search with Optuna: which points, in which order, by whom. Knows neither MLflow nor what is measured."""
