"""Checks of the estimators against public data: `python -m benchmarks.real_data open_bandit|hillstrom|bank`."""
