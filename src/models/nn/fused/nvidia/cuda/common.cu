// What all kernels share. The files of this folder are compiled as one, this one first.

typedef unsigned int u32;
typedef unsigned short u16;

// Threads of a block, of all kernels.
constexpr int THREADS = 128;

#define INFINITY __int_as_float(0x7f800000)

// A tensor [batch, head, row, column] of bf16 whose last axis is contiguous; distances in elements.
struct View {
    u16 *data;
    long long batch, head, row;
};

// Two values of bf16 from values in f32, and the other way.
__device__ __forceinline__ u32 packed(float low, float high) {
    u32 both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

__device__ __forceinline__ float low(u32 both) { return __uint_as_float(both << 16); }

__device__ __forceinline__ float high(u32 both) { return __uint_as_float(both & 0xffff0000); }

// The sum over a warp, for each of its threads.
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
    for (int distance = 16; distance; distance /= 2) value += __shfl_xor_sync(0xffffffff, value, distance);
    return value;
}

// The sum over a block, for each of its threads.
__device__ __forceinline__ float block_sum(float value) {
    __shared__ float sums[THREADS / 32];
    value = warp_sum(value);
    __syncthreads();
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
    __syncthreads();
    float sum = 0;
#pragma unroll
    for (int warp = 0; warp < THREADS / 32; warp++) sum += sums[warp];
    return sum;
}
