"""Entry points: each function takes a configuration, runs a method and logs an MLflow run."""
