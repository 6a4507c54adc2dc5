"""Trainings that fail, and trainings that are well: what ``benchmarks/diagnosis.py`` runs."""
