// Two vectors of f32 as bf16, one behind the other.
extern "C" __global__ void __launch_bounds__(THREADS)
    narrow_both(const float *a, const float *b, u16 *both, int of_a, int of_b) {
    long long i = (long long)blockIdx.x * THREADS + threadIdx.x;
    if (i >= (long long)of_a + of_b) return;
    both[i] = (u16)packed(i < of_a ? a[i] : b[i - of_a], 0);
}
