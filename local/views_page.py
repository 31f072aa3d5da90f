"""The tables of docs/views.md, made from the comments of the migrations: `python -m local views` renews them."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from bridge.store.migrate import migrations

BEGIN = "<!-- Made from the comments in bridge/schema by: python -m local views -->\n"
END = "<!-- End of the generated part. -->\n"
MIGRATIONS = ("0009_views", "0018_daily_intervals")
"""Those that make views and functions; a later one may change what an earlier one made."""
_COMMENT = re.compile(r"COMMENT ON (VIEW|COLUMN|FUNCTION) (\S+?|\w+\([^)]*\)) IS\s+'((?:[^']|'')*)';")


class Comment(NamedTuple):
    """What the database says about an object."""

    sort: str
    name: str
    """`view`, `view.column` or `function(types)`."""
    text: str


def comments() -> list[Comment]:
    """Those of the views and their functions, in the order in which they are declared."""
    found = {
        name: Comment(sort, name, text.replace("''", "'"))
        for migration in MIGRATIONS
        for sort, name, text in _COMMENT.findall(migrations()[migration])
    }
    return list(found.values())


def block() -> str:
    """A table of the columns of each view and one of the functions, in Markdown, between their marks."""
    return BEGIN + "".join(_views()) + "".join(_functions()) + END


def renewed(page: str) -> str:
    """The page with its block replaced by the current one. Raises `ValueError` when it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page lacks the comments that mark the generated part")
    return before + block() + after


def _views() -> Iterator[str]:
    for sort, name, text in comments():
        if sort == "VIEW":
            yield f"\n### `{name}`\n\n{text}\n\n| column | meaning |\n|---|---|\n"
        elif sort == "COLUMN":
            yield f"| `{name.partition('.')[2]}` | {text} |\n"


def _functions() -> Iterator[str]:
    yield "\n### Functions\n\n| function | meaning |\n|---|---|\n"
    for sort, name, text in comments():
        if sort == "FUNCTION":
            yield f"| `{name}` | {text} |\n"
    yield "\n"
