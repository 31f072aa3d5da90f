"""An MQTT 5 client, in layers. It is independent of readings; only `transport` uses sockets and clocks.

    url            mqtt[s]://[user:password@]host[:port]
    codec          bytes to packets and back: the names of the `mqtt5` codec that are used here, and a stream decoder
    session        the client's side of the protocol without I/O: bytes and times in, events and bytes out
    transport      one network connection of a session

The bridge (`sources.mqtt`), the simulator, provisioning, benchmarks and tests share `session` and `transport`.
"""
