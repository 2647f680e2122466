"""A recipe file in, a frozen Recipe out, or every problem with file, line and path."""
