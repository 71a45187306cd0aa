"""The entry of `moelab` and `python -m moelab`: an interrupt while the command line loads ends in one line, too."""

import sys


def main() -> None:
    """Run the command line and exit; 130 where it was interrupted before it was there."""
    try:
        from moelab.cli import main as run
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    run()


if __name__ == "__main__":
    main()
