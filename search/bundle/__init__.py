"""One study as one file: a stored study in, a zip of all but its models' weights out."""
