"""Writes a batch to PostgreSQL in one transaction: history, its projections and rejects."""
