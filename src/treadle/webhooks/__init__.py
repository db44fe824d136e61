"""Webhooks: which targets may be called, and the outbox that calls them when a run has ended."""
