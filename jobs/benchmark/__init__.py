"""Measurements of what the project promises: ``python -m jobs.benchmark --help``."""
