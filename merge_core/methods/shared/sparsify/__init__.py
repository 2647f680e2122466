"""Task vectors in, which of their entries stay and how the rest makes up for the lost ones out."""
