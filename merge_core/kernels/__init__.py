"""A method and its tensors in, one merged tensor out; the only place that knows of compilers."""
