"""The project's version. It is written here and nowhere else: the package's metadata are made from it."""

VERSION = "0.2.0"
