"""Whole jobs on embedded data."""
