"""What each leaf of a model is for, read from the model's computation."""
