"""The aligned model and the losses that make it."""
