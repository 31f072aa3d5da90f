"""GET /v1/live/stream: the live states of devices as server-sent events, for clients that stay connected.

`look` reads once a second what has changed in the live tables, for all viewers of this process and only while there are
any; `mirror` is the state that it has seen, from which snapshots are made; `hub` serializes what has changed once for
all viewers with the same filter; `viewer` is the bounded queue of one connection; `response` sends it. Alarms will be
passed to the viewers by `Hub.send`, as changes are.
"""
