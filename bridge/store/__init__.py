"""The transaction that keeps a batch: history, its projections and rejects."""
