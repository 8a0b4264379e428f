"""Which triplets a teacher labels, and its labels."""
