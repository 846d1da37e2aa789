// Scaled dot-product attention of bf16 without a mask, forwards and backwards, in tiles: no score is ever
// written down. The method is that of FlashAttention-2 (Dao, arXiv 2307.08691, algorithms 1 and 2), with
// the gradient of the queries in a pass of its own instead of atomic additions, so that runs repeat to the
// bit. Products are made by `mma.sync` (compute capability 8.0).
//
// Exponentials are of base 2: `scale` is log2(e) / sqrt(HEAD), and a level is the logarithm to base 2 of
// the sum of a row's exponentials.

// Elements of a head.
constexpr int HEAD = 64;
// Rows of a tile in shared memory.
constexpr int ROWS = 64;
// Pieces of 16 bytes in a row of a tile.
constexpr int PIECES = HEAD / 8;
// Elements of a tile.
constexpr int TILE = ROWS * HEAD;
// Products of 16 along a head, or along the rows of a tile.
constexpr int STEPS = HEAD / 16;
// Columns of 8 of a result as wide as a head or a tile.
constexpr int COLUMNS = HEAD / 8;

__device__ __forceinline__ u16 *matrix(const View &view, int heads) {
    return view.data + (blockIdx.y / heads) * view.batch + (blockIdx.y % heads) * view.head;
}

__device__ __forceinline__ u32 shared_address(const void *pointer) {
    return (u32)__cvta_generic_to_shared(pointer);
}

// Where a piece of a tile lies: rows are rotated against each other, so that eight of them hit all banks.
__device__ __forceinline__ u32 place(u32 tile, int row, int piece) {
    return tile + (row * PIECES + (piece ^ (row & 7))) * 16;
}

// Begins to copy rows `first..first + ROWS` into a tile, with zeros from `rows` on.
__device__ __forceinline__ void load_tile(u32 tile, const u16 *from, long long distance, int first, int rows) {
#pragma unroll
    for (int i = threadIdx.x; i < ROWS * PIECES; i += THREADS) {
        int row = i / PIECES, piece = i % PIECES;
        bool inside = first + row < rows;
        const u16 *source = from + (inside ? first + row : 0) * distance + piece * 8;
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(place(tile, row, piece)), "l"(source),
                     "r"(inside ? 16 : 0));
    }
}

__device__ __forceinline__ void end_of_copies() { asm volatile("cp.async.commit_group;"); }

// Waits until at most `LEFT` groups of copies are on their way.
template <int LEFT> __device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT));
}

__device__ __forceinline__ void load_blocks(u32 *found, u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(found[0]), "=r"(found[1]), "=r"(found[2]), "=r"(found[3])
                 : "r"(address));
}

__device__ __forceinline__ void load_blocks_transposed(u32 *found, u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(found[0]), "=r"(found[1]), "=r"(found[2]), "=r"(found[3])
                 : "r"(address));
}

// Rows `row..row + 16` of a tile as the left side of a product.
__device__ __forceinline__ void load_left(u32 *found, u32 tile, int row, int step) {
    int lane = threadIdx.x % 32;
    load_blocks(found, place(tile, row + lane % 16, step * 2 + lane / 16));
}

// Rows `row..row + 16` of a tile as 16 columns of the right side: the tile is the transposed matrix.
__device__ __forceinline__ void load_right(u32 *found, u32 tile, int row, int step) {
    int lane = threadIdx.x % 32;
    load_blocks(found, place(tile, row + lane % 8 + lane / 16 * 8, step * 2 + lane / 8 % 2));
}

// Rows `row..row + 16` of a tile as 16 rows of the right side, in columns of 8 from `2 * pair` on.
__device__ __forceinline__ void load_right_rows(u32 *found, u32 tile, int row, int pair) {
    int lane = threadIdx.x % 32;
    load_blocks_transposed(found, place(tile, row + lane % 16, pair * 2 + lane / 16));
}

// `sum += left right`, 16 x 16 by 16 x 8.
__device__ __forceinline__ void multiply_add(float *sum, const u32 *left, const u32 *right) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
                 "{%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
}

__device__ __forceinline__ float power(float exponent) {
    float value;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(value) : "f"(exponent));
    return value;
}

// A result of columns `2 * step` and `2 * step + 1`, as the left side of the next product.
__device__ __forceinline__ void as_left(u32 *left, const float (*result)[4], int step) {
    const float *one = result[2 * step], *other = result[2 * step + 1];
    left[0] = packed(one[0], one[1]);
    left[1] = packed(one[2], one[3]);
    left[2] = packed(other[0], other[1]);
    left[3] = packed(other[2], other[3]);
}

// `result = left tile^T`: all columns of a tile's rows.
__device__ __forceinline__ void scores(float (*result)[4], const u32 (*left)[4], u32 tile) {
#pragma unroll
    for (int column = 0; column < COLUMNS; column++)
        for (int i = 0; i < 4; i++) result[column][i] = 0;
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
#pragma unroll
        for (int pair = 0; pair < ROWS / 16; pair++) {
            u32 right[4];
            load_right(right, tile, pair * 16, step);
            multiply_add(result[2 * pair], left[step], right);
            multiply_add(result[2 * pair + 1], left[step], right + 2);
        }
    }
}

// `sum += result tile`.
__device__ __forceinline__ void accumulate(float (*sum)[4], const float (*result)[4], u32 tile) {
#pragma unroll
    for (int step = 0; step < ROWS / 16; step++) {
        u32 left[4];
        as_left(left, result, step);
#pragma unroll
        for (int pair = 0; pair < PIECES / 2; pair++) {
            u32 right[4];
            load_right_rows(right, tile, step * 16, pair);
            multiply_add(sum[2 * pair], left, right);
            multiply_add(sum[2 * pair + 1], left, right + 2);
        }
    }
}

// Writes 16 rows of a result times `factors`, of its upper and its lower half; those from `rows` on do not exist.
__device__ __forceinline__ void store(u16 *to, long long distance, int row, int rows, const float (*result)[4],
                                      const float *factors) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int at = row + lane / 4 + half * 8;
        if (at >= rows) continue;
        u16 *target = to + at * distance + lane % 4 * 2;
#pragma unroll
        for (int column = 0; column < COLUMNS; column++)
            *(u32 *)(target + column * 8) =
                packed(result[column][2 * half] * factors[half], result[column][2 * half + 1] * factors[half]);
    }
}

// Over the four threads that share a row of a result.
__device__ __forceinline__ float row_max(float value) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffff, value, 1));
    return fmaxf(value, __shfl_xor_sync(0xffffffff, value, 2));
}

__device__ __forceinline__ float row_sum(float value) {
    value += __shfl_xor_sync(0xffffffff, value, 1);
    return value + __shfl_xor_sync(0xffffffff, value, 2);
}

// Scores of keys that do not exist become what no exponential is left of.
__device__ __forceinline__ void mask(float (*result)[4], int left) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int column = 0; column < COLUMNS; column++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (column * 8 + lane % 4 * 2 + i % 2 >= left) result[column][i] = -INFINITY;
}

// One block per 128 queries of a head, 32 per warp: the output, and the levels of its rows.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    attention(View q, View k, View v, View out, float *levels, int heads, int queries, int keys, float scale) {
    __shared__ __align__(128) u16 memory[4 * TILE];
    u32 tiles = shared_address(memory);
    const u16 *of_k = matrix(k, heads), *of_v = matrix(v, heads);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, first = blockIdx.x * 2 * ROWS;

    u32 left[2][STEPS][4];
    for (int half = 0; half < 2; half++)
        load_tile(tiles + half * TILE * 2, matrix(q, heads), q.row, first + half * ROWS, queries);
    end_of_copies();
    wait_for_copies<0>();
    __syncthreads();
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int step = 0; step < STEPS; step++)
            load_left(left[m][step], tiles + warp / 2 * TILE * 2, warp % 2 * 32 + m * 16, step);
    __syncthreads();

    float sum[2][COLUMNS][4], most[2][2], total[2][2];
#pragma unroll
    for (int m = 0; m < 2; m++) {
        most[m][0] = most[m][1] = -INFINITY;
        total[m][0] = total[m][1] = 0;
#pragma unroll
        for (int column = 0; column < COLUMNS; column++)
            for (int i = 0; i < 4; i++) sum[m][column][i] = 0;
    }
    int count = (keys + ROWS - 1) / ROWS;
    load_tile(tiles, of_k, k.row, 0, keys);
    load_tile(tiles + TILE * 2, of_v, v.row, 0, keys);
    end_of_copies();
    for (int j = 0; j < count; j++) {
        u32 tile = tiles + j % 2 * TILE * 4, next = tiles + (j + 1) % 2 * TILE * 4;
        if (j + 1 < count) {
            load_tile(next, of_k, k.row, (j + 1) * ROWS, keys);
            load_tile(next + TILE * 2, of_v, v.row, (j + 1) * ROWS, keys);
        }
        end_of_copies();
        wait_for_copies<1>();
        __syncthreads();
        float p[2][COLUMNS][4];
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int column = 0; column < COLUMNS; column++)
                for (int i = 0; i < 4; i++) p[m][column][i] = 0;
#pragma unroll
        for (int step = 0; step < STEPS; step++)
#pragma unroll
            for (int pair = 0; pair < ROWS / 16; pair++) {
                u32 right[4];
                load_right(right, tile, pair * 16, step);
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    multiply_add(p[m][2 * pair], left[m][step], right);
                    multiply_add(p[m][2 * pair + 1], left[m][step], right + 2);
                }
            }
#pragma unroll
        for (int m = 0; m < 2; m++) {
            if ((j + 1) * ROWS > keys) mask(p[m], keys - j * ROWS);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float top = -INFINITY;
#pragma unroll
                for (int column = 0; column < COLUMNS; column++)
                    top = fmaxf(top, fmaxf(p[m][column][2 * half], p[m][column][2 * half + 1]));
                float now = fmaxf(most[m][half], row_max(top) * scale);
                float shrink = power(most[m][half] - now), of_tile = 0;
#pragma unroll
                for (int column = 0; column < COLUMNS; column++)
#pragma unroll
                    for (int i = 2 * half; i < 2 * half + 2; i++) {
                        p[m][column][i] = power(p[m][column][i] * scale - now);
                        of_tile += p[m][column][i];
                        sum[m][column][i] *= shrink;
                    }
                most[m][half] = now;
                total[m][half] = total[m][half] * shrink + of_tile;
            }
        }
#pragma unroll
        for (int step = 0; step < ROWS / 16; step++) {
            u32 weights[2][4];
            as_left(weights[0], p[0], step);
            as_left(weights[1], p[1], step);
#pragma unroll
            for (int pair = 0; pair < PIECES / 2; pair++) {
                u32 right[4];
                load_right_rows(right, tile + TILE * 2, step * 16, pair);
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    multiply_add(sum[m][2 * pair], weights[m], right);
                    multiply_add(sum[m][2 * pair + 1], weights[m], right + 2);
                }
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int m = 0; m < 2; m++) {
        float factors[2];
        int row = first + warp * 32 + m * 16;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float whole = row_sum(total[m][half]);
            factors[half] = 1 / whole;
            int at = row + lane / 4 + half * 8;
            if (lane % 4 == 0 && at < queries)
                levels[(long long)blockIdx.y * queries + at] = most[m][half] + log2f(whole);
        }
        store(matrix(out, heads), out.row, row, queries, sum[m], factors);
    }
}

// One warp per query: the sum over a head of output times its gradient.
extern "C" __global__ void __launch_bounds__(THREADS)
    attention_means(View out, View grad, float *means, int heads, int queries) {
    int row = blockIdx.x * (THREADS / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= queries) return;
    u32 a = *(const u32 *)(matrix(out, heads) + row * out.row + lane * 2);
    u32 b = *(const u32 *)(matrix(grad, heads) + row * grad.row + lane * 2);
    float sum = warp_sum(low(a) * low(b) + high(a) * high(b));
    if (lane == 0) means[(long long)blockIdx.y * queries + row] = sum;
}

// The 16 rows of this warp of two tensors, from `first` on, as left sides; the tiles are free again behind it.
__device__ __forceinline__ void load_rows(u32 (*of_a)[4], u32 (*of_b)[4], u32 tiles, const View &a, const View &b,
                                          int heads, int first, int rows) {
    int warp = threadIdx.x / 32;
    load_tile(tiles, matrix(a, heads), a.row, first, rows);
    load_tile(tiles + TILE * 2, matrix(b, heads), b.row, first, rows);
    end_of_copies();
    wait_for_copies<0>();
    __syncthreads();
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        load_left(of_a[step], tiles, warp * 16, step);
        load_left(of_b[step], tiles + TILE * 2, warp * 16, step);
    }
    __syncthreads();
}

// One block per 64 queries of a head, 16 per warp: their gradient.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    attention_queries_grad(View q, View k, View v, View grad, View dq, const float *levels, const float *means,
                           int heads, int queries, int keys, float scale) {
    __shared__ __align__(128) u16 memory[4 * TILE];
    u32 tiles = shared_address(memory);
    const u16 *of_k = matrix(k, heads), *of_v = matrix(v, heads);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, first = blockIdx.x * ROWS;

    u32 of_q[STEPS][4], of_grad[STEPS][4];
    load_rows(of_q, of_grad, tiles, q, grad, heads, first, queries);
    float level[2], mean[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = first + warp * 16 + lane / 4 + half * 8;
        long long at = (long long)blockIdx.y * queries + row;
        level[half] = row < queries ? levels[at] : INFINITY;
        mean[half] = row < queries ? means[at] : 0;
    }
    float sum[COLUMNS][4];
#pragma unroll
    for (int column = 0; column < COLUMNS; column++)
        for (int i = 0; i < 4; i++) sum[column][i] = 0;
    int count = (keys + ROWS - 1) / ROWS;
    load_tile(tiles, of_k, k.row, 0, keys);
    load_tile(tiles + TILE * 2, of_v, v.row, 0, keys);
    end_of_copies();
    for (int j = 0; j < count; j++) {
        u32 tile = tiles + j % 2 * TILE * 4, next = tiles + (j + 1) % 2 * TILE * 4;
        if (j + 1 < count) {
            load_tile(next, of_k, k.row, (j + 1) * ROWS, keys);
            load_tile(next + TILE * 2, of_v, v.row, (j + 1) * ROWS, keys);
        }
        end_of_copies();
        wait_for_copies<1>();
        __syncthreads();
        float p[COLUMNS][4], dp[COLUMNS][4];
        scores(p, of_q, tile);
        scores(dp, of_grad, tile + TILE * 2);
        if ((j + 1) * ROWS > keys) mask(p, keys - j * ROWS);
#pragma unroll
        for (int column = 0; column < COLUMNS; column++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                dp[column][i] = power(p[column][i] * scale - level[i / 2]) * (dp[column][i] - mean[i / 2]);
        accumulate(sum, dp, tile);
        __syncthreads();
    }
    float factor = scale * 0.6931471805599453f, factors[2] = {factor, factor};
    store(matrix(dq, heads), dq.row, first + warp * 16, queries, sum, factors);
}

// One block per 64 keys of a head, 16 per warp: the gradients of keys and values.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    attention_keys_grad(View q, View k, View v, View grad, View dk, View dv, const float *levels,
                        const float *means, int heads, int queries, int keys, float scale) {
    __shared__ __align__(128) u16 memory[4 * TILE];
    __shared__ float of_levels[2][ROWS], of_means[2][ROWS];
    u32 tiles = shared_address(memory);
    const u16 *of_q = matrix(q, heads), *of_grad = matrix(grad, heads);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, first = blockIdx.x * ROWS;

    u32 of_k[STEPS][4], of_v[STEPS][4];
    load_rows(of_k, of_v, tiles, k, v, heads, first, keys);
    float sum_k[COLUMNS][4], sum_v[COLUMNS][4];
#pragma unroll
    for (int column = 0; column < COLUMNS; column++)
        for (int i = 0; i < 4; i++) sum_k[column][i] = sum_v[column][i] = 0;
    int count = (queries + ROWS - 1) / ROWS;
    auto load = [&](int j) {
        u32 tile = tiles + j % 2 * TILE * 4;
        load_tile(tile, of_q, q.row, j * ROWS, queries);
        load_tile(tile + TILE * 2, of_grad, grad.row, j * ROWS, queries);
        if (threadIdx.x < ROWS) {
            int row = j * ROWS + threadIdx.x;
            long long at = (long long)blockIdx.y * queries + row;
            of_levels[j % 2][threadIdx.x] = row < queries ? levels[at] : INFINITY;
            of_means[j % 2][threadIdx.x] = row < queries ? means[at] : 0;
        }
    };
    load(0);
    end_of_copies();
    for (int j = 0; j < count; j++) {
        u32 tile = tiles + j % 2 * TILE * 4;
        if (j + 1 < count) load(j + 1);
        end_of_copies();
        wait_for_copies<1>();
        __syncthreads();
        float p[COLUMNS][4], dp[COLUMNS][4];
        scores(p, of_k, tile);
        scores(dp, of_v, tile + TILE * 2);
#pragma unroll
        for (int column = 0; column < COLUMNS; column++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int query = column * 8 + lane % 4 * 2 + i % 2;
                p[column][i] = power(p[column][i] * scale - of_levels[j % 2][query]);
                dp[column][i] = p[column][i] * (dp[column][i] - of_means[j % 2][query]);
            }
        accumulate(sum_v, p, tile + TILE * 2);
        accumulate(sum_k, dp, tile);
        __syncthreads();
    }
    float factor = scale * 0.6931471805599453f;
    float of_key[2] = {factor, factor}, of_value[2] = {1, 1};
    store(matrix(dk, heads), dk.row, first + warp * 16, keys, sum_k, of_key);
    store(matrix(dv, heads), dv.row, first + warp * 16, keys, sum_v, of_value);
}
