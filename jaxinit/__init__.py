"""Starting parameters for JAX programs: the right values, fast, and provable."""
