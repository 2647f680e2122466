"""One recipe document and its parents in, a Plan out: names, shapes, numbers; no tensor is read."""
