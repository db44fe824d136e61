"""Processes that share a database: what they tell each other.

signals.py      short messages, heard once they are committed
"""
