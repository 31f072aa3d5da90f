"""Every place that writes a file, and why what it writes is as durable as it has to be.

A new place fails here: write through `bridge.private_file`, or add it with the reason.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("bridge", "api", "simulator", "local", "mosquitto")

WRITERS = {
    "bridge/private_file.py": "the durable writer itself: synced, renamed, the directory synced",
    "mosquitto/registry.py": "SQLite with `synchronous = EXTRA`, which syncs the file and its directory in a commit",
    "simulator/ledger.py": "the name is synced at once, the content with --fsync, all of it at the end",
    "local/postgres.py": "initdb syncs the cluster; its directory is synced after the rename",
    "local/replica.py": "a copy of a database, which is made again if it is missing",
    "local/mosquitto.py": "the broker's data directory, which is made again if it is missing",
    "local/process.py": "logs",
    "local/up.py": "a lock, which has no content that matters after its process",
    "local/cli.py": "pages of the documentation in a checkout",
}
_METHODS = {"write_text", "write_bytes", "mkdir", "touch", "rename", "symlink_to", "hardlink_to", "link"}
_FUNCTIONS = {"mkstemp", "mkdtemp", "NamedTemporaryFile", "copy", "copyfile", "copy2", "copytree", "move", "makedirs"}
_MODULES = {"os", "shutil", "tempfile"}


def writes(call: ast.Call) -> bool:
    """Whether the call can create, write or rename a file."""
    function = call.func
    if not isinstance(function, ast.Attribute):
        return isinstance(function, ast.Name) and function.id == "open" and _for_writing(call, 1)
    owner = function.value.id if isinstance(function.value, ast.Name) else ""
    if function.attr in _FUNCTIONS:
        return owner in _MODULES
    if (owner, function.attr) == ("sqlite3", "connect"):
        return True
    if function.attr == "replace":  # of a path; that of a text has two arguments
        return len(call.args) == 1 and not call.keywords
    if function.attr in ("open", "fdopen"):
        return _for_writing(call, 1 if owner in ("os", "io") else 0)
    return function.attr in _METHODS


def _for_writing(call: ast.Call, position: int) -> bool:
    modes = [*call.args[position : position + 1], *(k.value for k in call.keywords if k.arg == "mode")]
    return any(isinstance(mode, ast.Constant) and set(str(mode.value)) & set("wax+") for mode in modes)


def writers() -> set[str]:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    calls = {path: [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)] for path in files}
    return {str(path.relative_to(ROOT)) for path, found in calls.items() if any(map(writes, found))}


def test_files_are_written_in_these_places_only() -> None:
    assert writers() == WRITERS.keys()


def test_ways_to_write_are_recognised() -> None:
    ways = (
        "path.write_text('x')",
        "path.open('ab')",
        "open(path, 'w')",
        "open(path, mode='x')",
        "os.fdopen(3, 'wb')",
        "sqlite3.connect(path)",
        "shutil.copy(a, b)",
        "a.replace(b)",
        "tempfile.mkstemp()",
    )
    others = ("open(path)", "path.open('rb')", "text.replace('a', 'b')", "items.copy()", "transport.open(broker, 5)")

    def call(text: str) -> ast.Call:
        expression = ast.parse(text, mode="eval").body
        assert isinstance(expression, ast.Call)
        return expression

    assert all(writes(call(way)) for way in ways)
    assert not any(writes(call(other)) for other in others)
