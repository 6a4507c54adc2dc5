# AVX2 and FMA, float64. Flags in setup.py; import only after dispatch has asked the CPU.
include "table.pxi"
