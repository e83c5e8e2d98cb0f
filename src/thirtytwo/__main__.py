"""`python -m thirtytwo` is the command `thirtytwo`."""

from thirtytwo.cli.main import main

if __name__ == "__main__":
    main()
