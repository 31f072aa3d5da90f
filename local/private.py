"""Files that only their owner may read."""

from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Write `text` atomically with mode 0600."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text(text)
    new.replace(path)
