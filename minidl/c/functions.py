"""The C functions that the statements call, and those of them that a program needs.

They compute what the kernels do, by the same formulas. ``x`` and ``y`` may be the same array where
``Statement.shares`` says so: none of these functions reads an element after writing it.
"""

from __future__ import annotations

import re

import numpy as np

from minidl.c.image_functions import IMAGE_FUNCTIONS

# y of one element v, by the name of the function; after it, the names of its other arguments.
ELEMENTWISE = {
    "relu": ("v < 0.0f ? 0.0f : v",),
    "leaky_relu": ("v > 0.0f ? v : slope * v", "slope"),
    "elu": ("v < 0.0f ? alpha * expm1f(v) : v", "alpha"),
    "celu": ("v < 0.0f ? alpha * expm1f(v / alpha) : v", "alpha"),
    "selu": ("v < 0.0f ? 1.75809934f * expm1f(v) : 1.05070099f * v",),
    "sigmoid": ("logistic(v)",),
    "hyperbolic_tangent": ("tanhf(v)",),
    "silu": ("not_below(v) * logistic(v)",),
    "softplus": ("softplus_of(v, beta)", "beta"),
    "gelu": ("not_below(v) * 0.5f * erfcf(-0.707106781f * v)",),
    "gelu_tanh": ("not_below(v) * logistic(gelu_inner(v))",),
    "hard_sigmoid": ("hard_logistic(v)",),
    "hard_swish": ("not_below(v) * hard_logistic(v)",),
    "mish": ("not_below(v) * tanhf(softplus_of(v, 1.0f))",),
    "softsign": ("fabsf(v) > 1e30f ? copysignf(1.0f, v) : v / (1.0f + fabsf(v))",),
}

# Functions of one element, and those of arrays; each calls only those before it.
FUNCTIONS = r"""
/* -1000 if v is less: there every factor is 0, and infinity times 0 would be no number. */
static float not_below(float v)
{
    return v < -1000.0f ? -1000.0f : v;
}

/* 1 / (1 + exp(-v)), written so that exp never overflows. */
static float logistic(float v)
{
    const float e = expf(-fabsf(v));
    return (v < 0.0f ? e : 1.0f) / (1.0f + e);
}

static float hard_logistic(float v)
{
    const float y = v / 6.0f + 0.5f;
    return y < 0.0f ? 0.0f : (y > 1.0f ? 1.0f : y);
}

/* log(1 + exp(beta v)) / beta. */
static float softplus_of(float v, float beta)
{
    return (v < 0.0f ? 0.0f : v) + log1pf(expf(-beta * fabsf(v))) / beta;
}

/* 2 sqrt(2 / pi) (v + 0.044715 v^3). */
static float gelu_inner(float v)
{
    const float z = v > 1000.0f ? 1000.0f : not_below(v);
    return 1.59576912f * z * (1.0f + 0.044715f * z * z);
}

static void clear(size_t n, float *y)
{
    for (size_t i = 0; i < n; i++) {
        y[i] = 0.0f;
    }
}

static void copy(size_t n, const float *x, float *y)
{
    for (size_t i = 0; i < n; i++) {
        y[i] = x[i];
    }
}

static void add(size_t n, const float *a, const float *b, float *y)
{
    for (size_t i = 0; i < n; i++) {
        y[i] = a[i] + b[i];
    }
}

static void multiply(size_t n, const float *a, const float *b, float *y)
{
    for (size_t i = 0; i < n; i++) {
        y[i] = a[i] * b[i];
    }
}

/* Columns of y, from the one at `begin` on, are those of x. */
static void put(size_t rows, size_t columns, size_t begin, size_t width, const float *x, float *y)
{
    for (size_t r = 0; r < rows; r++) {
        for (size_t j = 0; j < columns; j++) {
            y[r * width + begin + j] = x[r * columns + j];
        }
    }
}

/* The product of two rows, in four sums: they round less than one sum would. */
static float dot(size_t n, const float *a, const float *b)
{
    float s0 = 0.0f, s1 = 0.0f, s2 = 0.0f, s3 = 0.0f;
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        s0 += a[i] * b[i];
        s1 += a[i + 1] * b[i + 1];
        s2 += a[i + 2] * b[i + 2];
        s3 += a[i + 3] * b[i + 3];
    }
    for (; i < n; i++) {
        s0 += a[i] * b[i];
    }
    return (s0 + s1) + (s2 + s3);
}

/* y = x W + b; the rows of weight are the columns of W. */
static void linear(size_t rows, size_t in, size_t out, const float *weight, const float *bias,
                   const float *x, float *y)
{
    for (size_t r = 0; r < rows; r++) {
        for (size_t j = 0; j < out; j++) {
            const float product = dot(in, x + r * in, weight + j * in);
            y[r * out + j] = bias ? product + bias[j] : product;
        }
    }
}

/* A row of weight for every index; returns -1 if an index is no row, else 0. */
static int embedding(size_t n, int32_t rows, size_t columns, const float *weight,
                     const int32_t *x, float *y)
{
    for (size_t i = 0; i < n; i++) {
        if (x[i] < 0 || x[i] >= rows) {
            return -1;
        }
        for (size_t j = 0; j < columns; j++) {
            y[i * columns + j] = weight[(size_t)x[i] * columns + j];
        }
    }
    return 0;
}

static void prelu(size_t rows, size_t columns, const float *slope, const float *x, float *y)
{
    for (size_t r = 0; r < rows; r++, x += columns, y += columns) {
        for (size_t j = 0; j < columns; j++) {
            y[j] = x[j] > 0.0f ? x[j] : slope[j] * x[j];
        }
    }
}

static void softmax(size_t rows, size_t columns, const float *x, float *y)
{
    for (size_t r = 0; r < rows; r++, x += columns, y += columns) {
        float largest = x[0], sum = 0.0f;
        for (size_t j = 1; j < columns; j++) {
            largest = x[j] > largest ? x[j] : largest;
        }
        for (size_t j = 0; j < columns; j++) {
            y[j] = expf(x[j] - largest);
            sum += y[j];
        }
        for (size_t j = 0; j < columns; j++) {
            y[j] /= sum;
        }
    }
}

static void log_softmax(size_t rows, size_t columns, const float *x, float *y)
{
    for (size_t r = 0; r < rows; r++, x += columns, y += columns) {
        float largest = x[0], sum = 0.0f;
        for (size_t j = 1; j < columns; j++) {
            largest = x[j] > largest ? x[j] : largest;
        }
        for (size_t j = 0; j < columns; j++) {
            sum += expf(x[j] - largest);
        }
        const float logarithm = logf(sum);
        for (size_t j = 0; j < columns; j++) {
            y[j] = x[j] - largest - logarithm;
        }
    }
}

/* scale is gamma / sqrt(variance + eps). */
static void batch_norm(size_t rows, size_t columns, const float *mean, const float *scale,
                       const float *beta, const float *x, float *y)
{
    for (size_t r = 0; r < rows; r++, x += columns, y += columns) {
        for (size_t j = 0; j < columns; j++) {
            y[j] = (x[j] - mean[j]) * scale[j] + beta[j];
        }
    }
}

static void standardize(size_t rows, size_t columns, const float *mean, const float *std,
                        const float *x, float *y)
{
    for (size_t r = 0; r < rows; r++, x += columns, y += columns) {
        for (size_t j = 0; j < columns; j++) {
            y[j] = (x[j] - mean[j]) / std[j];
        }
    }
}

/* Differences are from the first number, so that equal numbers have variance exactly 0. */
static void layer_norm(size_t rows, size_t columns, const float *gamma, const float *beta,
                       float eps, const float *x, float *y)
{
    for (size_t r = 0; r < rows; r++, x += columns, y += columns) {
        const float first = x[0], n = (float)columns;
        float sum = 0.0f, squares = 0.0f;
        for (size_t j = 0; j < columns; j++) {
            sum += x[j] - first;
        }
        const float mean = sum / n;
        for (size_t j = 0; j < columns; j++) {
            const float difference = x[j] - first - mean;
            squares += difference * difference;
        }
        const float scale = 1.0f / sqrtf(squares / n + eps);
        for (size_t j = 0; j < columns; j++) {
            y[j] = gamma[j] * ((x[j] - first - mean) * scale) + beta[j];
        }
    }
}

/* Where squares may overflow, they are those of x / 2^80. */
static void rms_norm(size_t rows, size_t columns, const float *gamma, float eps, const float *x,
                     float *y)
{
    for (size_t r = 0; r < rows; r++, x += columns, y += columns) {
        const float n = (float)columns;
        float square = dot(columns, x, x) / n, unit = 1.0f;
        if (!(square < 1e30f)) {
            square = 0.0f;
            unit = 0x1p-80f;
            for (size_t j = 0; j < columns; j++) {
                square += (unit * x[j]) * (unit * x[j]) / n;
            }
        }
        const float scale = unit / sqrtf(square + unit * unit * eps);
        for (size_t j = 0; j < columns; j++) {
            y[j] = gamma[j] * (x[j] * scale);
        }
    }
}

/* h = tanh(x W_x + h W_h + b). */
static void step_rnn_tanh(size_t in, size_t hidden, const float *input_weight,
                          const float *recurrent_weight, const float *bias, const float *x,
                          float *h, float *work)
{
    float *u = work + hidden;
    linear(1, in, hidden, input_weight, bias, x, work);
    linear(1, hidden, hidden, recurrent_weight, NULL, h, u);
    for (size_t j = 0; j < hidden; j++) {
        h[j] = tanhf(work[j] + u[j]);
    }
}

/* h = max(0, x W_x + h W_h + b). */
static void step_rnn_relu(size_t in, size_t hidden, const float *input_weight,
                          const float *recurrent_weight, const float *bias, const float *x,
                          float *h, float *work)
{
    float *u = work + hidden;
    linear(1, in, hidden, input_weight, bias, x, work);
    linear(1, hidden, hidden, recurrent_weight, NULL, h, u);
    for (size_t j = 0; j < hidden; j++) {
        const float z = work[j] + u[j];
        h[j] = z < 0.0f ? 0.0f : z;
    }
}

/* i, f, g, o = s(z_i), s(z_f), tanh(z_g), s(z_o); c = f c + i g; h = o tanh(c). After h comes c. */
static void step_lstm(size_t in, size_t hidden, const float *input_weight,
                      const float *recurrent_weight, const float *bias, const float *x, float *h,
                      float *work)
{
    float *c = h + hidden, *z = work, *u = work + 4 * hidden;
    linear(1, in, 4 * hidden, input_weight, bias, x, z);
    linear(1, hidden, 4 * hidden, recurrent_weight, NULL, h, u);
    add(4 * hidden, z, u, z);
    for (size_t j = 0; j < hidden; j++) {
        const float i = logistic(z[j]), f = logistic(z[hidden + j]);
        const float g = tanhf(z[2 * hidden + j]), o = logistic(z[3 * hidden + j]);
        c[j] = f * c[j] + i * g;
        h[j] = o * tanhf(c[j]);
    }
}

/* r, z = s(.), s(.); n = tanh(x W_n + b_n + r (h W'_n + b'_n)); h = n + z (h - n). */
static void step_gru(size_t in, size_t hidden, const float *input_weight,
                     const float *recurrent_weight, const float *bias,
                     const float *recurrent_bias, const float *x, float *h, float *work)
{
    float *z = work, *u = work + 3 * hidden;
    linear(1, in, 3 * hidden, input_weight, bias, x, z);
    linear(1, hidden, 3 * hidden, recurrent_weight, recurrent_bias, h, u);
    for (size_t j = 0; j < hidden; j++) {
        const float r = logistic(z[j] + u[j]);
        const float update = logistic(z[hidden + j] + u[hidden + j]);
        const float n = tanhf(z[2 * hidden + j] + r * u[2 * hidden + j]);
        h[j] = n + update * (h[j] - n);
    }
}
"""


def literal(number: float) -> str:
    """Return a number as a constant of type float, which is exactly the float32 nearest to it."""
    text = f"{np.float32(number):.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def _elementwise(name: str, expression: str, *numbers: str) -> str:
    """Return the source of a function that applies an expression to each element."""
    more = "".join(f"float {number}, " for number in numbers)
    lines = (
        f"static void {name}(size_t n, {more}const float *x, float *y)",
        "{",
        "    for (size_t i = 0; i < n; i++) {",
        "        const float v = x[i];",
        f"        y[i] = {expression};",
        "    }",
        "}",
    )
    return "\n".join(lines)


def _sources() -> dict[str, str]:
    """Return the source of every function by name; each calls only those before it."""
    parts = [part.strip() for part in re.split(r"\n\n(?=/\*|static)", FUNCTIONS + IMAGE_FUNCTIONS)]
    found = {_name(part): part for part in parts}
    found |= {name: _elementwise(name, *parts) for name, parts in ELEMENTWISE.items()}
    return found


def _name(source: str) -> str:
    match = re.search(r"^static \w+ (\w+)\(", source, re.MULTILINE)
    assert match is not None
    return match[1]


SOURCES = _sources()


def needed(lines: list[str]) -> list[str]:
    """Return the sources of the functions that these lines call, those that are called first."""
    names = called("\n".join(lines))
    for name in reversed(SOURCES):  # a function calls only those before it
        if name in names:
            names |= called(SOURCES[name])
    return [source for name, source in SOURCES.items() if name in names]


def called(text: str) -> set[str]:
    """Return the names of the functions of ``SOURCES`` that a text calls."""
    return SOURCES.keys() & set(re.findall(r"\b(\w+)\(", text))
