"""The path of a reading, from a device's message to a committed row.

    source -> formats.decode_message -> Delivery -> Ingest (batch) -> store.write (one transaction) -> settle

A reading that was called *stored* is in the history exactly once: the transaction commits before anything is
acknowledged, the primary key (device, timestamp) absorbs every repetition, and what could not be written is
never acknowledged, so the broker (or the HTTP client) still has it. Read `ingest.py` next; then `formats/`, `sources/`
and `store/`, which each begin with their port.
"""
