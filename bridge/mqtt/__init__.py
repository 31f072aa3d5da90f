"""MQTT 5, in layers: only the upper two know of this system's readings, only `transport` knows of sockets and clocks.

    url            mqtt[s]://[user:password@]host[:port]
    codec          bytes to packets and back: the names of the `mqtt5` codec that are used here, and a stream decoder
    session        a client's side of the protocol without I/O: bytes and times in, events and bytes out
    transport      one network connection that carries a session
    arrival        what one network read brought, and what each message is owed after the commit
    source         the bridge's durable session: reconnects, hands messages to the ingest, settles them

Bridge, simulator, provisioning, benchmarks and the observers of the tests share `session` and `transport`.
"""
