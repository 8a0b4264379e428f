"""Features of many images, kept on disk."""
