"""`python -m foldwise`: the command line, also where no script is on the path."""

from foldwise.cli import main

if __name__ == "__main__":
    main()
