"""Fine-tuning a student on a teacher's similarities."""
