"""A searched study in, its winner and what holds of it out."""
