"""The parts of `jaxinit.signal`: layers recorded, measured, judged and cured."""
