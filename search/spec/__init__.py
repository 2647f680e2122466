"""A study file in, a checked StudySpec out, or every problem with file, line and path."""
