"""Ties merge_core and evaluators with Optuna: study file, space, samplers, selection, record, command line."""
