"""The catalogue of initializers, one file per family."""
