"""The command `bptt`, and `python -m bptt`: Ctrl-C is one line, even while the imports still go on."""

import sys


def main() -> int:
    """Run the command line and return its exit code."""
    try:
        from bptt.cli import main as run

        return run()
    except KeyboardInterrupt:
        sys.stderr.write("bptt: interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
