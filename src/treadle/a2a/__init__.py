"""Assistants as A2A agents: JSON-RPC over runs, contexts as threads, in two dialects."""
