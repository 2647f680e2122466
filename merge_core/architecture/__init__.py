"""A config in, what is known of its model class out: tensors, layers, tied names."""
