"""Scores of models against people."""
