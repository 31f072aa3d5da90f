"""`fleet-api` and `python -m api`: its commands are in `cli`."""

from bridge.memory import nothing_to_collect

with nothing_to_collect():
    from api.cli import app

if __name__ == "__main__":
    app()
