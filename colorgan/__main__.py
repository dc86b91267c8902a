"""`python -m colorgan` is the command `colorgan`."""
import sys


def main():
    "The command, and a quiet end if Ctrl-C comes before it has begun."
    try:
        from .cli import main
        return main()
    except KeyboardInterrupt:
        print('colorgan: stopped by Ctrl-C', file=sys.stderr)
        return 130


if __name__ == '__main__': sys.exit(main())
