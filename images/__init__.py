"""What users ask for and get: the life of a generation."""
