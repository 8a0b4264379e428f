"""Vision models that turn prepared pixels into embeddings."""
