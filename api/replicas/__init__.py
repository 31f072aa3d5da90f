"""Answers from streaming replicas (docs/decisions/0048): live states, history and figures.

`primary` asks the primary four times a second how far its log is, and `replica` asks each replica how far it has
replayed it. So the state that a replica shows is known as a time of the primary's clock, without a write and without
comparing the clocks of machines. `reading` chooses the server of a request, and the layer `api.layers.reads` gives an
answer again when its replica fails.
"""
