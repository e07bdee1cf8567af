"""Schemes tried against each other: the parts of `jaxinit.compare`."""
