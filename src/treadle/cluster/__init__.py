"""Processes that share a database: what they tell each other.

signals.py      short messages, heard once they are committed
run_rows.py     what the row of a run tells all of them
"""
