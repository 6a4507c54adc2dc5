# The compiler's default instruction set, float64. Flags in setup.py; import only after dispatch has asked the CPU.
include "table.pxi"
