"""Bytes to readings or rejects. Pure: no clock, no socket, no await."""
