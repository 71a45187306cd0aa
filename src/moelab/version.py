"""The version of moelab, for the package and for the records of its runs."""

__version__ = "0.1.0"
