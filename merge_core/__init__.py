"""Recipes, parents, merge methods, plans, live candidates, export; no word of Optuna or tasks."""
