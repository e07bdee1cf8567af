"""What the parts of a computation are to one another: attention, loops, streams."""
