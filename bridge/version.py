"""The project's version. This is its only definition: the package metadata are derived from it."""

VERSION = "0.2.0"
