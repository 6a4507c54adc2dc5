# AVX-512 (F, BW, DQ, VL), float64. Flags in setup.py; import only after dispatch has asked the CPU.
include "table.pxi"
