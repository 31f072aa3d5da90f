"""The clusters that keep a stream of messages: their clients, what must exist in them, and publishing to them."""
