"""Assistants as MCP tools: a thin room above assistants and runs."""
