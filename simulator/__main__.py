"""`fleet-simulator` and `python -m simulator`: its commands are in `cli`."""

from bridge.extras import extra
from bridge.memory import nothing_to_collect

with nothing_to_collect(), extra("simulator"):
    from simulator.cli import app

if __name__ == "__main__":
    app()
