"""A config in, what transformers knows of its model class out, and edited configs."""
