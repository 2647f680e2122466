"""The parents' tokenizers in; the result's vocabulary, re-indexed parents and chat template out."""
