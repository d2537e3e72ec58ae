"""MLflow: opening, finding, logging and closing runs. Only `serving` and `stages` know MLflow besides."""
