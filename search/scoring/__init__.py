"""Item scores in, a study's numbers with their intervals out."""
