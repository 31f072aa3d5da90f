"""`fleet-local` and `python -m local`: its commands are in `cli`."""

from bridge.extras import extra
from bridge.memory import nothing_to_collect

with nothing_to_collect(), extra("local"):
    from local.cli import app

if __name__ == "__main__":
    app()
