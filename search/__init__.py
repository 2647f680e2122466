"""Ties merge_core, evaluators and Optuna: study file, space, samplers, record, selection, CLI."""
