"""A recipe with ranges in, the study's dimensions out, and from their numbers plain recipes."""
