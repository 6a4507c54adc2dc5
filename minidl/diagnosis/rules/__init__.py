"""The rules: static ones before the first step, tests on the first batches, and running ones."""
