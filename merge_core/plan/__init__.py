"""A recipe and opened parents in, a Plan out: names, shapes, numbers; no tensor is read."""
