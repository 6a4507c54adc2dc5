"""Diagnosis of trainings: what is wrong with one, why, and what cures it."""
