# One build of all loops. Each file of loops ends with the names and the structs of its kernels.

from libc.math cimport INFINITY, NAN, frexp, ldexp, pow, sqrt
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from minidl._kernels.arguments cimport *
from simd cimport *

KERNELS = {}    # by name: the address of the loop, and the bytes of its argument struct


cdef tuple entry(kernel_fn function, size_t nbytes):
    return <size_t>function, nbytes


include "loops/vector/partition.pxi"
include "loops/vector/vector_math.pxi"
include "loops/elementwise.pxi"
include "loops/activations.pxi"
include "loops/dropout.pxi"
include "loops/product/packing.pxi"
include "loops/product/microkernel.pxi"
include "loops/product/algorithm.pxi"
include "loops/product/blocking.pxi"
include "loops/product/matmul.pxi"
include "loops/product/skinny.pxi"
include "loops/product/transposed.pxi"
include "loops/column_sum.pxi"
include "loops/convolution/patches.pxi"
include "loops/convolution/depthwise.pxi"
include "loops/convolution/few_outputs.pxi"
include "loops/convolution/convolution.pxi"
include "loops/product/split_k.pxi"
include "loops/batch_norm.pxi"
include "loops/layer_norm.pxi"
include "loops/rms_norm.pxi"
include "loops/losses.pxi"
include "loops/vector_losses.pxi"
include "loops/softmax.pxi"
include "loops/optimizers.pxi"
include "loops/gates.pxi"
include "loops/sequences.pxi"
include "loops/gather.pxi"
include "loops/pooling/windows.pxi"
include "loops/pooling/pooling.pxi"
include "loops/pooling/dilated.pxi"
include "loops/watching.pxi"
include "loops/peak.pxi"

KERNELS["peak_flops"] = 2 * 2 * MR * LANES, 0    # of one repetition of fma_peak
