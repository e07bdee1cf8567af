"""What each leaf is for, where it meets activations."""
