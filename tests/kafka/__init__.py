"""Tests with a real Kafka broker, run by `make test-kafka`: they need Java."""
