"""The user's own questions: a JSON-lines file in, one score per question out."""
