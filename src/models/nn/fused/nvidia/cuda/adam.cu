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
