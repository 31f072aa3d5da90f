"""Databases of the tests' server."""

import itertools

from local.postgres import Postgres

_numbers = itertools.count(1)


def new_database(postgres: Postgres, template: str = "template0") -> str:
    """Make a database, with a name of its own, and return its owner's URL.

    A fixed name would be there already where a module's fixture is set up again: tests move between processes.
    """
    name = f"t{next(_numbers)}"
    postgres.sql(f"CREATE DATABASE {name} TEMPLATE {template} OWNER fleet")
    return postgres.url(name, "fleet")
