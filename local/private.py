"""Files that only we may read."""

from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Write `text` with mode 0600. The file appears, or changes, whole or not at all, whenever we are killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text(text)
    new.replace(path)
