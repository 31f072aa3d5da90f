"""The HTTP service: the second door into the bridge, and the answers to questions about the fleet.

    front.Front -> auth (key, scope, rate) -> ingest.IngestDoor        POST /v1/ingest
                                           -> FastAPI routes           everything else

Writing shares the bridge's path: wire.decode_body -> Delivery -> Ingest -> PostgresStore; an answer follows the
commit. Reading has its own connections. Read `app.py` next, then `front.py`.
"""
