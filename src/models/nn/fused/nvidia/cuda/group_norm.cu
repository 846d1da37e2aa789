// Group norm of [B, C, T, H, W] in bf16 over groups of channels and all places, then scale and shift by
// latents [B, C, f, h, w] that are repeated to its size, then SiLU; sums are in f32.

// Values of a group that a block of threads has in registers.
constexpr int CHUNK = MOST * WIDTH * THREADS;

// Count, mean and sum of squared distances to it of two sets, as of their union (Chan, Golub and LeVeque 1979).
__device__ __forceinline__ void unite(float *count, float *mean, float *squares, float other_count, float other_mean,
                                      float other_squares) {
    float all = *count + other_count;
    if (all == 0) return;
    float apart = other_mean - *mean, share = other_count / all;
    *mean += apart * share;
    *squares += other_squares + apart * apart * *count * share;
    *count = all;
}

// Mean and sum of squared distances to it of each chunk: [groups, chunks, 2].
extern "C" __global__ void __launch_bounds__(THREADS)
    group_parts(const u16 *x, float *parts, int length, int chunks) {
    int start = blockIdx.x * CHUNK, count = min(length - start, CHUNK);
    const u16 *from = x + (long long)blockIdx.y * length + start;
    float values[MOST][WIDTH], sum = 0, squares = 0;
    for_pieces(count, [&](int i, int place) {
        load(values[i], from + place);
        for (int j = 0; j < WIDTH; j++) sum += values[i][j];
    });
    float mean = block_sum(sum) / count;
    for_pieces(count, [&](int i, int) {
        for (int j = 0; j < WIDTH; j++) squares += (values[i][j] - mean) * (values[i][j] - mean);
    });
    squares = block_sum(squares);
    if (threadIdx.x == 0) {
        float *to = parts + ((long long)blockIdx.y * chunks + blockIdx.x) * 2;
        to[0] = mean, to[1] = squares;
    }
}

// Mean and reciprocal deviation of each group: [groups, 2].
extern "C" __global__ void __launch_bounds__(THREADS)
    group_statistics(const float *parts, float *found, int length, int chunks, float eps) {
    __shared__ float all[3][THREADS];
    const float *from = parts + (long long)blockIdx.x * chunks * 2;
    float count = 0, mean = 0, squares = 0;
    for (int i = threadIdx.x; i < chunks; i += THREADS)
        unite(&count, &mean, &squares, min(length - i * CHUNK, CHUNK), from[2 * i], from[2 * i + 1]);
    for (int half = THREADS / 2; half; half /= 2) {
        all[0][threadIdx.x] = count, all[1][threadIdx.x] = mean, all[2][threadIdx.x] = squares;
        __syncthreads();
        int other = threadIdx.x + half;
        if (threadIdx.x < half) unite(&count, &mean, &squares, all[0][other], all[1][other], all[2][other]);
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        found[2 * blockIdx.x] = mean;
        found[2 * blockIdx.x + 1] = rsqrtf(squares / count + eps);
    }
}

// The latent frame of a frame; the first of an odd number of frames has one of its own.
__device__ __forceinline__ int latent_frame(int frame, int frames, int of) {
    if (frames % 2 == 0 || frames == of) return frame / (frames / of);
    return frame == 0 ? 0 : 1 + (frame - 1) / ((frames - 1) / (of - 1));
}

// The norm by these statistics, times `scale` plus `shift` if there are such, through SiLU.
extern "C" __global__ void __launch_bounds__(THREADS)
    group_norm_silu(const u16 *x, const u16 *gamma, const u16 *beta, const float *found, const u16 *scale,
                    const u16 *shift, u16 *y, int channels, int per_group, int frames, int rows, int columns,
                    int latent_frames, int latent_rows, int latent_columns) {
    int plane = frames * rows * columns, place = (blockIdx.x * THREADS + threadIdx.x) * WIDTH;
    if (place >= plane) return;
    int channel = blockIdx.y % channels, group = blockIdx.y / per_group;
    float mean = found[2 * group], by = found[2 * group + 1] * low(gamma[channel]), on = low(beta[channel]);
    long long row = (long long)blockIdx.y * plane;
    float values[WIDTH];
    load(values, x + row + place);
    for (int j = 0; j < WIDTH; j++) values[j] = (values[j] - mean) * by + on;
    if (scale) {
        int column = place % columns, line = place / columns % rows, frame = place / columns / rows;
        int wide = columns / latent_columns, tall = rows / latent_rows, left = 0;
        float up, plus;
#pragma unroll
        for (int j = 0; j < WIDTH; j++) {
            if (left == 0) {
                long long latent = (long long)blockIdx.y * latent_frames + latent_frame(frame, frames, latent_frames);
                latent = (latent * latent_rows + line / tall) * latent_columns + column / wide;
                up = low(scale[latent]), plus = low(shift[latent]);
                left = wide - column % wide;
            }
            values[j] = values[j] * up + plus;
            left--;
            if (++column == columns) {
                column = left = 0;
                if (++line == rows) line = 0, frame++;
            }
        }
    }
    for (int j = 0; j < WIDTH; j++) values[j] = values[j] / (1 + __expf(-values[j]));
    save(y + row + place, values);
}
