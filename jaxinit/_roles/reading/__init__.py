"""The computation as one graph, and every leaf followed forward through it."""
