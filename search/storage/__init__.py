"""Trials in and out of an Optuna storage."""
