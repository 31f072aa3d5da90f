"""The HTTP service: readings in over HTTP, and the answers to questions about the fleet.

    layers (routes, metrics, headers, errors, deadline, authentication, ...) -> ingest.IngestDoor   POST /v1/ingest
                                                                             -> FastAPI routes      everything else

Writing shares the bridge's path: wire.decode_body -> Delivery -> Ingest -> PostgresStore; an answer follows the
commit. Reading has its own connections. Read `app.py` next: `layered` is the list of the layers, in order.
"""
