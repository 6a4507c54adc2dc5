"""Experiments: each one command, one table, and one page of docs that says how to read it."""
