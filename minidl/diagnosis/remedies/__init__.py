"""Remedies: what can be changed about a training program, in words, in code and in deed."""
