"""One function per entry point: configuration in, MLflow run out. Each loads, calls a method, logs."""
