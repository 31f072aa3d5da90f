"""The path of a reading, from a device's message to a committed row.

    source -> formats.decode_message -> Delivery -> Ingest (batch) -> store.write (one transaction) -> settle

A reading that was reported as *stored* is in the history exactly once: the transaction commits before anything is
acknowledged, the primary key (device, timestamp) deduplicates repeated readings, and a message that could not be
written is never acknowledged, so the broker (or the HTTP client) still has it. Continue with `ingest.py`, then with
`formats/`, `sources/` and `store/`.
"""
