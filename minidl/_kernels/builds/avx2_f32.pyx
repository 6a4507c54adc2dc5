# AVX2 and FMA, float32; setup.py has its flags.
# Import it only after dispatch has asked the CPU.
include "builds/loops.pxi"
