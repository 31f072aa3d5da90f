"""The HTTP service: ingest over HTTP, and queries of live state, history and analytics.

    layers (routes, metrics, headers, errors, deadline, authentication, ...) -> ingest.IngestEndpoint   POST /v1/ingest
                                                                             -> FastAPI routes          everything else

Ingest uses the bridge's modules: wire.decode_body -> Delivery -> Ingest -> PostgresStore; the response is sent after
the commit. Queries use separate connections. Continue with `app.py`: `layered` is the list of the layers, in order.
"""
