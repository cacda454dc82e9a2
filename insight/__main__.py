"""``python -m insight``: the same as the ``insight`` command."""

from insight.cli.main import run

if __name__ == "__main__":
    run()
