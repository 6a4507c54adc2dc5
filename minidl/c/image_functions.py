"""The C functions of images: convolution, pooling, transposition. A sequence is one row of pixels.

Channels come last, as in the layers.
"""

IMAGE_FUNCTIONS = r"""
/* y[c][r] = x[r][c]. */
static void transpose(size_t rows, size_t columns, const float *x, float *y)
{
    for (size_t c = 0; c < columns; c++) {
        for (size_t r = 0; r < rows; r++) {
            *y++ = x[r * columns + c];
        }
    }
}

/* y = x W + b of each window of an image. A window has kernel[0] x kernel[1] pixels, step[0] and
   step[1] apart; windows are stride[0] and stride[1] apart, and begin before[0] rows and before[1]
   columns outside of the image, where all is 0. Each output reads `depth` channels of its group. */
static void convolution(const size_t size[2], const size_t out[2], size_t channels, size_t depth,
                        size_t outputs, const size_t kernel[2], const size_t stride[2],
                        const size_t before[2], const size_t step[2], const float *weight,
                        const float *bias, const float *x, float *y)
{
    const size_t each = outputs * depth / channels; /* outputs of a group */
    for (size_t r = 0; r < out[0]; r++) {
        for (size_t s = 0; s < out[1]; s++) {
            const float *w = weight;
            for (size_t o = 0; o < outputs; o++) {
                float sum = 0.0f;
                for (size_t a = 0; a < kernel[0]; a++) {
                    const size_t i = r * stride[0] + a * step[0];
                    for (size_t b = 0; b < kernel[1]; b++, w += depth) {
                        const size_t j = s * stride[1] + b * step[1];
                        if (i >= before[0] && i - before[0] < size[0] && j >= before[1]
                            && j - before[1] < size[1]) {
                            const size_t pixel = (i - before[0]) * size[1] + j - before[1];
                            sum += dot(depth, x + pixel * channels + o / each * depth, w);
                        }
                    }
                }
                *y++ = bias ? sum + bias[o] : sum;
            }
        }
    }
}

/* The largest pixel of each window of an image, for every channel; NaN if there is one. Windows
   are kernel[0] x kernel[1] pixels, step[0] and step[1] apart; they lie stride[0] and stride[1]
   apart, and begin before[0] rows and before[1] columns outside of the image; what lies outside
   does not count. */
static void max_pool(const size_t size[2], const size_t out[2], size_t channels,
                     const size_t kernel[2], const size_t stride[2], const size_t before[2],
                     const size_t step[2], const float *x, float *y)
{
    for (size_t r = 0; r < out[0]; r++) {
        for (size_t s = 0; s < out[1]; s++) {
            for (size_t c = 0; c < channels; c++) {
                float most = -INFINITY;
                for (size_t a = 0; a < kernel[0]; a++) {
                    const size_t i = r * stride[0] + a * step[0];
                    for (size_t b = 0; b < kernel[1]; b++) {
                        const size_t j = s * stride[1] + b * step[1];
                        if (i >= before[0] && i - before[0] < size[0] && j >= before[1]
                            && j - before[1] < size[1]) {
                            const size_t pixel = (i - before[0]) * size[1] + j - before[1];
                            const float v = x[pixel * channels + c];
                            most = v > most || v != v ? v : most;
                        }
                    }
                }
                *y++ = most;
            }
        }
    }
}

/* The mean of each window, for every channel: the sum over the number of its pixels inside; where
   counted[0] is not 0, over those in the first counted[0] rows and counted[1] columns from where
   the first window begins. */
static void avg_pool(const size_t size[2], const size_t out[2], size_t channels,
                     const size_t kernel[2], const size_t stride[2], const size_t before[2],
                     const size_t step[2], const size_t counted[2], const float *x, float *y)
{
    for (size_t r = 0; r < out[0]; r++) {
        for (size_t s = 0; s < out[1]; s++) {
            for (size_t c = 0; c < channels; c++) {
                float sum = 0.0f;
                size_t n = 0;
                for (size_t a = 0; a < kernel[0]; a++) {
                    const size_t i = r * stride[0] + a * step[0];
                    for (size_t b = 0; b < kernel[1]; b++) {
                        const size_t j = s * stride[1] + b * step[1];
                        const int inside = i >= before[0] && i - before[0] < size[0]
                                           && j >= before[1] && j - before[1] < size[1];
                        if (counted[0] ? i < counted[0] && j < counted[1] : inside) {
                            n++;
                        }
                        if (inside) {
                            const size_t pixel = (i - before[0]) * size[1] + j - before[1];
                            sum += x[pixel * channels + c];
                        }
                    }
                }
                *y++ = n ? sum / (float)n : 0.0f;
            }
        }
    }
}

/* Every pixel, `times` times in each dimension. */
static void upsample(const size_t size[2], size_t channels, const size_t times[2], const float *x,
                     float *y)
{
    for (size_t i = 0; i < size[0] * times[0]; i++) {
        for (size_t j = 0; j < size[1] * times[1]; j++) {
            const size_t pixel = i / times[0] * size[1] + j / times[1];
            for (size_t c = 0; c < channels; c++) {
                *y++ = x[pixel * channels + c];
            }
        }
    }
}
"""
