"""The version of the package, which its metadata takes from here."""

__version__ = "0.2.0"
