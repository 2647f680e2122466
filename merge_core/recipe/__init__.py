"""A recipe file in, a frozen Recipe out, or every problem with file, line and key path.

Nothing here knows folders or models: a reference is text until ``parents`` looks for it.
"""
