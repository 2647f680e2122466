"""The user's own documents: texts in, nats per document out."""
