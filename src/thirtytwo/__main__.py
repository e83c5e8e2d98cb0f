"""`python -m thirtytwo` is the command `thirtytwo`."""

from thirtytwo.cli.start import run

if __name__ == "__main__":
    run()
