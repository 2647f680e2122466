"""The parents' tokenizers in, the result's vocabulary, rows and chat template out."""
