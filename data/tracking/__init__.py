"""MLflow tracking: turns of the loop and their stages as runs."""
