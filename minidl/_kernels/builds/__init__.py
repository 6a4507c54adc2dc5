"""All loops, compiled once per instruction set and dtype."""
