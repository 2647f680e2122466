"""Who runs a study's jobs beside the coordinator: a job in, a future of its result out."""
