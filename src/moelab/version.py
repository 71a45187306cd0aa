"""The version of moelab, for the package and for the records of its runs."""

__version__ = "0.2.0.dev0"
