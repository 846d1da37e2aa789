// A step of AdamW in f32: parameter, gradient and both moments to parameter and both moments.
extern "C" __global__ void __launch_bounds__(THREADS)
    adam_step(const float *param, const float *gradient, const float *first, const float *second, float *new_param,
              float *new_first, float *new_second, int count, float gradient_factor, float shrink, float first_share,
              float beta2, float second_share, float root_correction, float eps, float rate) {
    long long i = (long long)blockIdx.x * THREADS + threadIdx.x;
    if (i >= count) return;
    float g = gradient[i] * gradient_factor;
    float m = first[i] + (g - first[i]) * first_share;
    float v = second[i] * beta2 + g * g * second_share;
    new_first[i] = m;
    new_second[i] = v;
    new_param[i] = param[i] * shrink - m / (sqrtf(v) / root_correction + eps) * rate;
}

// The sum of squares of as many values as blocks share, by block, and what was found before.
extern "C" __global__ void __launch_bounds__(THREADS)
    squares_onto(const float *values, const float *before, float *sums, int count, int first) {
    float sum = 0;
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < count; i += (long long)gridDim.x * THREADS)
        sum += values[i] * values[i];
    sum = block_sum(sum);
    int place = first + blockIdx.x;
    if (threadIdx.x == 0) sums[place] = before[place] + sum;
}
