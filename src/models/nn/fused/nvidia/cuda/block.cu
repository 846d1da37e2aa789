// What a transformer's block does around its products, each in one pass over memory: values are bf16 there,
// and f32 on the way. Rows are those of the last axis, which is contiguous and a multiple of 8.

// Values that a thread reads at once, and how often it may do so in a row.
constexpr int WIDTH = 8;
constexpr int MOST = 4;

__device__ __forceinline__ void load(float *values, const u16 *from) {
    uint4 all = *(const uint4 *)from;
    u32 pairs[4] = {all.x, all.y, all.z, all.w};
#pragma unroll
    for (int i = 0; i < 4; i++) values[2 * i] = low(pairs[i]), values[2 * i + 1] = high(pairs[i]);
}

__device__ __forceinline__ void load(float *values, const float *from) {
    float4 a = *(const float4 *)from, b = *(const float4 *)(from + 4);
    values[0] = a.x, values[1] = a.y, values[2] = a.z, values[3] = a.w;
    values[4] = b.x, values[5] = b.y, values[6] = b.z, values[7] = b.w;
}

__device__ __forceinline__ void save(u16 *to, const float *values) {
    *(uint4 *)to = make_uint4(packed(values[0], values[1]), packed(values[2], values[3]),
                              packed(values[4], values[5]), packed(values[6], values[7]));
}

// Calls `f(values of a row's piece in registers, place of the piece)` for the pieces of this thread.
template <class F> __device__ __forceinline__ void for_pieces(int width, F f) {
#pragma unroll
    for (int i = 0; i < MOST; i++) {
        int place = (i * THREADS + threadIdx.x) * WIDTH;
        if (place < width) f(i, place);
    }
}

// Mean and reciprocal deviation of a row, which is left in `values`.
__device__ __forceinline__ void statistics(float (*values)[WIDTH], const u16 *row, int width, float eps, float *mean,
                                           float *rstd) {
    float sum = 0, squares = 0;
    for_pieces(width, [&](int i, int place) {
        load(values[i], row + place);
        for (int j = 0; j < WIDTH; j++) sum += values[i][j];
    });
    *mean = block_sum(sum) / width;
    for_pieces(width, [&](int i, int) {
        for (int j = 0; j < WIDTH; j++) squares += (values[i][j] - *mean) * (values[i][j] - *mean);
    });
    *rstd = rsqrtf(block_sum(squares) / width + eps);
}

// Row `video` or `text` of the modulation [B, 6, width] of this block's token.
__device__ __forceinline__ const u16 *modulation(const u16 *chunks, int tokens, int text_len, int width, int video,
                                                 int text) {
    int batch = blockIdx.x / tokens, token = blockIdx.x % tokens;
    return chunks + (long long)(batch * 6 + (token < text_len ? text : video)) * width;
}

// Layer norm, then scale and shift of each token by its stream's.
extern "C" __global__ void __launch_bounds__(THREADS)
    norm_modulate(const u16 *x, const u16 *gamma, const u16 *beta, const u16 *chunks, u16 *y, int tokens,
                  int text_len, int width, float eps) {
    const u16 *shift = modulation(chunks, tokens, text_len, width, 0, 3);
    const u16 *scale = modulation(chunks, tokens, text_len, width, 1, 4);
    long long row = (long long)blockIdx.x * width;
    float values[MOST][WIDTH], mean, rstd;
    statistics(values, x + row, width, eps, &mean, &rstd);
    for_pieces(width, [&](int i, int place) {
        float g[WIDTH], b[WIDTH], up[WIDTH], on[WIDTH];
        load(g, gamma + place), load(b, beta + place), load(up, scale + place), load(on, shift + place);
        for (int j = 0; j < WIDTH; j++)
            values[i][j] = ((values[i][j] - mean) * rstd * g[j] + b[j]) * (1 + up[j]) + on[j];
        save(y + row + place, values[i]);
    });
}

// The gradient of its input.
extern "C" __global__ void __launch_bounds__(THREADS)
    norm_modulate_grad(const u16 *x, const u16 *gamma, const u16 *chunks, const u16 *grad, u16 *dx, int tokens,
                       int text_len, int width, float eps) {
    const u16 *scale = modulation(chunks, tokens, text_len, width, 1, 4);
    long long row = (long long)blockIdx.x * width;
    float values[MOST][WIDTH], inner[MOST][WIDTH], mean, rstd, level = 0, slope = 0;
    statistics(values, x + row, width, eps, &mean, &rstd);
    for_pieces(width, [&](int i, int place) {
        float g[WIDTH], up[WIDTH];
        load(inner[i], grad + row + place), load(g, gamma + place), load(up, scale + place);
        for (int j = 0; j < WIDTH; j++) {
            values[i][j] = (values[i][j] - mean) * rstd;
            inner[i][j] *= g[j] * (1 + up[j]);
            level += inner[i][j];
            slope += inner[i][j] * values[i][j];
        }
    });
    level = block_sum(level) / width;
    slope = block_sum(slope) / width;
    for_pieces(width, [&](int i, int place) {
        for (int j = 0; j < WIDTH; j++) inner[i][j] = (inner[i][j] - level - values[i][j] * slope) * rstd;
        save(dx + row + place, inner[i]);
    });
}

// A row of `x + gate y`; without `x`, of `gate y`.
template <class T>
__device__ __forceinline__ void gated_row(const u16 *x, const u16 *y, const T *gate, u16 *out, int width) {
    long long row = (long long)blockIdx.x * width;
    for_pieces(width, [&](int, int place) {
        float a[WIDTH] = {0, 0, 0, 0, 0, 0, 0, 0}, b[WIDTH], by[WIDTH];
        if (x) load(a, x + row + place);
        load(b, y + row + place), load(by, gate + place);
        for (int j = 0; j < WIDTH; j++) a[j] += by[j] * b[j];
        save(out + row + place, a);
    });
}

// `x + gate y`, each token by its stream's gate; without `x`, `gate y`.
extern "C" __global__ void __launch_bounds__(THREADS)
    gated_add(const u16 *x, const u16 *y, const u16 *chunks, u16 *out, int tokens, int text_len, int width) {
    gated_row(x, y, modulation(chunks, tokens, text_len, width, 2, 5), out, width);
}

// Row `index` of a table [B, groups, rows, width], for the group of this block's token.
__device__ __forceinline__ const float *table_row(const float *table, int tokens, int groups, int rows, int width,
                                                  int index) {
    int batch = blockIdx.x / tokens, group = blockIdx.x % tokens / (tokens / groups);
    return table + ((long long)(batch * groups + group) * rows + index) * width;
}

// `x (1 + scale) + shift` by rows of a table; without the shift if its index is negative.
extern "C" __global__ void __launch_bounds__(THREADS)
    scale_shift(const u16 *x, const float *table, u16 *y, int tokens, int groups, int rows, int width, int shift,
                int scale) {
    const float *by = table_row(table, tokens, groups, rows, width, scale);
    const float *on = table_row(table, tokens, groups, rows, width, shift < 0 ? 0 : shift);
    long long row = (long long)blockIdx.x * width;
    for_pieces(width, [&](int, int place) {
        float a[WIDTH], up[WIDTH], plus[WIDTH] = {0, 0, 0, 0, 0, 0, 0, 0};
        load(a, x + row + place), load(up, by + place);
        if (shift >= 0) load(plus, on + place);
        for (int j = 0; j < WIDTH; j++) a[j] = a[j] * (1 + up[j]) + plus[j];
        save(y + row + place, a);
    });
}

// `x + gate y` by a row of a table; without `x`, `gate y`.
extern "C" __global__ void __launch_bounds__(THREADS)
    gate_onto(const u16 *x, const u16 *y, const float *table, u16 *out, int tokens, int groups, int rows, int width,
              int gate) {
    gated_row(x, y, table_row(table, tokens, groups, rows, width, gate), out, width);
}

// The root-mean-square norm, times a weight for each column in bf16, or one for all in f32.
extern "C" __global__ void __launch_bounds__(THREADS)
    rms_norm(const u16 *x, const u16 *weight, const float *factor, u16 *y, int width, float eps) {
    long long row = (long long)blockIdx.x * width;
    float values[MOST][WIDTH], squares = 0;
    for_pieces(width, [&](int i, int place) {
        load(values[i], x + row + place);
        for (int j = 0; j < WIDTH; j++) squares += values[i][j] * values[i][j];
    });
    float scale = rsqrtf(block_sum(squares) / width + eps) * (factor ? *factor : 1);
    for_pieces(width, [&](int i, int place) {
        float w[WIDTH] = {1, 1, 1, 1, 1, 1, 1, 1};
        if (weight) load(w, weight + place);
        for (int j = 0; j < WIDTH; j++) values[i][j] *= scale * w[j];
        save(y + row + place, values[i]);
    });
}

// The gradient of its input.
extern "C" __global__ void __launch_bounds__(THREADS)
    rms_norm_grad(const u16 *x, const u16 *weight, const float *factor, const u16 *grad, u16 *dx, int width,
                   float eps) {
    long long row = (long long)blockIdx.x * width;
    float values[MOST][WIDTH], inner[MOST][WIDTH], squares = 0, slope = 0;
    for_pieces(width, [&](int i, int place) {
        load(values[i], x + row + place);
        for (int j = 0; j < WIDTH; j++) squares += values[i][j] * values[i][j];
    });
    float scale = rsqrtf(block_sum(squares) / width + eps), all = factor ? *factor : 1;
    for_pieces(width, [&](int i, int place) {
        float w[WIDTH] = {1, 1, 1, 1, 1, 1, 1, 1};
        if (weight) load(w, weight + place);
        load(inner[i], grad + row + place);
        for (int j = 0; j < WIDTH; j++) {
            values[i][j] *= scale;
            inner[i][j] *= all * w[j];
            slope += inner[i][j] * values[i][j];
        }
    });
    slope = block_sum(slope) / width;
    for_pieces(width, [&](int i, int place) {
        for (int j = 0; j < WIDTH; j++) inner[i][j] = (inner[i][j] - values[i][j] * slope) * scale;
        save(dx + row + place, inner[i]);
    });
}

// Rotation of the pairs of [B, S, width] by the tables [S, width], or back.
extern "C" __global__ void __launch_bounds__(THREADS)
    rotate(const u16 *x, const float *cosines, const float *sines, u16 *y, int tokens, int width, int back) {
    long long row = (long long)blockIdx.x * width, angles = (long long)(blockIdx.x % tokens) * width;
    for_pieces(width, [&](int, int place) {
        float a[WIDTH], c[WIDTH], s[WIDTH], turned[WIDTH];
        load(a, x + row + place), load(c, cosines + angles + place), load(s, sines + angles + place);
        for (int j = 0; j < WIDTH; j++) turned[j] = a[j] * c[j] + a[j ^ 1] * (back ? s[j ^ 1] : s[j]);
        save(y + row + place, turned);
    });
}

// Pairs of a head that a thread of a warp may have.
constexpr int PAIRS = 4;

// Mean and reciprocal deviation of a head, which is left in this thread's `values`, with zeros behind it.
__device__ __forceinline__ void head_statistics(float (*values)[2], const u16 *head, int width, float eps, float *mean,
                                                float *rstd) {
    int lane = threadIdx.x % 32;
    float sum = 0, squares = 0;
#pragma unroll
    for (int i = 0; i < PAIRS; i++) {
        int place = (i * 32 + lane) * 2;
        u32 both = place < width ? *(const u32 *)(head + place) : 0;
        values[i][0] = low(both), values[i][1] = high(both);
        sum += values[i][0] + values[i][1];
    }
    *mean = warp_sum(sum) / width;
#pragma unroll
    for (int i = 0; i < PAIRS; i++)
        if ((i * 32 + lane) * 2 < width)
            for (int j = 0; j < 2; j++) squares += (values[i][j] - *mean) * (values[i][j] - *mean);
    *rstd = rsqrtf(warp_sum(squares) / width + eps);
}

// Layer norm over each head of [B, S, heads, width], then rotation of its pairs, as [B, heads, S, width].
extern "C" __global__ void __launch_bounds__(THREADS)
    norm_rotate(const u16 *x, const u16 *gamma, const u16 *beta, const float *cosines, const float *sines, u16 *y,
                int tokens, int heads, int width, int rows, float eps) {
    int row = blockIdx.x * (THREADS / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    int head = row % heads, token = row / heads % tokens, batch = row / heads / tokens;
    const u16 *from = x + (long long)row * width;
    float values[PAIRS][2], mean, rstd;
    head_statistics(values, from, width, eps, &mean, &rstd);
    u16 *to = y + ((long long)(batch * heads + head) * tokens + token) * width;
#pragma unroll
    for (int i = 0; i < PAIRS; i++) {
        int place = (i * 32 + lane) * 2;
        if (place >= width) continue;
        u32 g = *(const u32 *)(gamma + place), b = *(const u32 *)(beta + place);
        float2 c = *(const float2 *)(cosines + token * width + place);
        float2 s = *(const float2 *)(sines + token * width + place);
        float one = (values[i][0] - mean) * rstd * low(g) + low(b);
        float other = (values[i][1] - mean) * rstd * high(g) + high(b);
        *(u32 *)(to + place) = packed(one * c.x + other * s.x, other * c.y + one * s.y);
    }
}

// The gradient of its input, from that of its output by a view.
extern "C" __global__ void __launch_bounds__(THREADS)
    norm_rotate_grad(const u16 *x, const u16 *gamma, const float *cosines, const float *sines, View grad, u16 *dx,
                     int tokens, int heads, int width, int rows, float eps) {
    int row = blockIdx.x * (THREADS / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    int head = row % heads, token = row / heads % tokens, batch = row / heads / tokens;
    const u16 *from = x + (long long)row * width;
    const u16 *upstream = grad.data + batch * grad.batch + head * grad.head + token * grad.row;
    float values[PAIRS][2], inner[PAIRS][2], mean, rstd, level = 0, slope = 0;
    head_statistics(values, from, width, eps, &mean, &rstd);
#pragma unroll
    for (int i = 0; i < PAIRS; i++) {
        int place = (i * 32 + lane) * 2;
        inner[i][0] = inner[i][1] = 0;
        if (place >= width) continue;
        u32 g = *(const u32 *)(gamma + place), up = *(const u32 *)(upstream + place);
        float2 c = *(const float2 *)(cosines + token * width + place);
        float2 s = *(const float2 *)(sines + token * width + place);
        inner[i][0] = (low(up) * c.x + high(up) * s.y) * low(g);
        inner[i][1] = (high(up) * c.y + low(up) * s.x) * high(g);
        for (int j = 0; j < 2; j++) {
            values[i][j] = (values[i][j] - mean) * rstd;
            level += inner[i][j];
            slope += inner[i][j] * values[i][j];
        }
    }
    level = warp_sum(level) / width;
    slope = warp_sum(slope) / width;
    u16 *to = dx + (long long)row * width;
#pragma unroll
    for (int i = 0; i < PAIRS; i++) {
        int place = (i * 32 + lane) * 2;
        if (place >= width) continue;
        float one = (inner[i][0] - level - values[i][0] * slope) * rstd;
        float other = (inner[i][1] - level - values[i][1] * slope) * rstd;
        *(u32 *)(to + place) = packed(one, other);
    }
}

constexpr float ROOT = 0.7978845608028654f; // sqrt(2 / pi)
constexpr float CUBIC = 0.044715f;

// `1 / (1 + exp(-2 u))`, by which GELU in its tanh form multiplies.
__device__ __forceinline__ float gelu_share(float x) {
    return 1 / (1 + __expf(-2 * ROOT * (x + CUBIC * x * x * x)));
}

extern "C" __global__ void __launch_bounds__(THREADS) gelu(const u16 *x, u16 *y, int pieces) {
    int piece = blockIdx.x * THREADS + threadIdx.x;
    if (piece >= pieces) return;
    float values[WIDTH];
    load(values, x + (long long)piece * WIDTH);
    for (int j = 0; j < WIDTH; j++) values[j] *= gelu_share(values[j]);
    save(y + (long long)piece * WIDTH, values);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    gelu_grad(const u16 *x, const u16 *grad, u16 *dx, int pieces) {
    int piece = blockIdx.x * THREADS + threadIdx.x;
    if (piece >= pieces) return;
    float values[WIDTH], up[WIDTH];
    load(values, x + (long long)piece * WIDTH), load(up, grad + (long long)piece * WIDTH);
    for (int j = 0; j < WIDTH; j++) {
        float v = values[j], share = gelu_share(v);
        float slope = 2 * ROOT * (1 + 3 * CUBIC * v * v);
        values[j] = up[j] * (share + v * share * (1 - share) * slope);
    }
    save(dx + (long long)piece * WIDTH, values);
}
