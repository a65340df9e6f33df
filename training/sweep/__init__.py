"""Sweeps: Optuna chooses settings, DVC runs them as experiments, val judges (docs/sweeps.md)."""
