"""``python -m mantik``: the command line where the console script is not on the path."""

from mantik.cli import main

if __name__ == "__main__":
    main()
