"""`fleet-bridge` and `python -m bridge`: the commands are in `cli`."""

from bridge.memory import nothing_to_collect

with nothing_to_collect():
    from bridge.cli import app

if __name__ == "__main__":
    app()
