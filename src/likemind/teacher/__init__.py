"""A map from frozen features to people's similarities."""
