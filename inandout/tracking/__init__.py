"""MLflow tracking: open, find, reuse, log and close runs. Only `serving` and `stages` also import MLflow."""
