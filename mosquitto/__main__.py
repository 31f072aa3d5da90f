"""`fleet-provision` and `python -m mosquitto`: its commands are in `cli`."""

from bridge.extras import extra
from bridge.memory import nothing_to_collect

with nothing_to_collect(), extra("provision"):
    from mosquitto.cli import app

if __name__ == "__main__":
    app()
