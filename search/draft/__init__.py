"""Models and tasks, a mergekit-evolve configuration or a plain recipe in, a study file out."""
