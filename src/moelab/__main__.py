"""`python -m moelab` is the same as `moelab`."""

from moelab.cli import main

main()
