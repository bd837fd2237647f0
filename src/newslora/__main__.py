"""`python -m newslora`."""

from newslora.cli.app import run

if __name__ == "__main__":
    run()
