// What a GPU does besides the network: noise before it, pixels behind it.
//
// The noise stream `philox4x32-10/u16-quantile/1` has the bits of inference/noise.py. Philox4x32-10:
// Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Pixels have
// the bits of the graph in generator.onnx.
//
// To a compiler without CUDA, the same functions are plain C++ loops: a test compares their bits with
// numpy's on any machine. scripts/make_kernels.py compiles this file to kernels.ptx, which is loaded.

#ifndef __CUDACC__
#include <math.h>
#endif

typedef unsigned int u32;
typedef unsigned long long u64;

#ifdef __CUDACC__
#define INLINE static __device__ __forceinline__
#define KERNEL extern "C" __global__ void
// One thread for each item; the last block of threads may have some without.
#define FOR_EACH(item, items)                           \
    const u32 item = blockIdx.x * blockDim.x + threadIdx.x; \
    if (item < (items))
#else
#define INLINE static inline
#define KERNEL extern "C" void
#define FOR_EACH(item, items) for (u32 item = 0; item < (items); ++item)
#endif

#define LATENT_STREAM 0u
#define LABEL_STREAM 1u

struct Words {
    u32 word[4];
};

// Philox4x32-10 for one block of one image.
INLINE Words philox(u32 block, u32 stream, u64 image, u64 seed) {
    u32 c0 = block, c1 = stream, c2 = (u32)image, c3 = (u32)(image >> 32);
    u32 k0 = (u32)seed, k1 = (u32)(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const u64 p0 = (u64)0xD2511F53u * c0, p1 = (u64)0xCD9E8D57u * c2;
        c0 = (u32)(p1 >> 32) ^ c1 ^ k0;
        c1 = (u32)p1;
        c2 = (u32)(p0 >> 32) ^ c3 ^ k1;
        c3 = (u32)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    const Words words = {{c0, c1, c2, c3}};
    return words;
}

// T[k], of which `upper` holds T[32768] to T[65535]; T[65535 - k] = -T[k].
INLINE float quantile(const float *upper, u32 k) {
    const u32 positive = k & 0x8000u;
    const float value = upper[(positive ? k : ~k) & 0x7FFFu];
    return positive ? value : -value;
}

// z, (count, latent_dim): an item is 8 values of an image, one block of Philox.
KERNEL noise_latents(
    float *z, const float *__restrict__ upper, u64 seed, u64 start, u32 count, u32 latent_dim) {
    const u32 blocks = (latent_dim + 7) / 8;
    FOR_EACH(item, count * blocks) {
        const u32 row = item / blocks, block = item % blocks;
        const Words words = philox(block, LATENT_STREAM, start + row, seed);
        const u32 first = 8 * block;
        float *const out = z + (u64)row * latent_dim + first;
#ifdef __CUDACC__
        if (latent_dim % 4 == 0) {  // rows begin at whole float4: four values in one store
            for (u32 i = 0; i < 8 && first + i < latent_dim; i += 4) {
                const u32 low = words.word[i / 2], high = words.word[i / 2 + 1];
                *(float4 *)(out + i) = make_float4(
                    quantile(upper, low & 0xFFFFu), quantile(upper, low >> 16),
                    quantile(upper, high & 0xFFFFu), quantile(upper, high >> 16));
            }
            return;
        }
#endif
        for (u32 i = 0; i < 8; ++i)
            if (first + i < latent_dim)
                out[i] = quantile(upper, words.word[i / 2] >> 16 * (i % 2) & 0xFFFFu);
    }
}

// Labels, (count,): the drawn one of each image, or `label` for all where that is not negative.
KERNEL noise_labels(
    long long *labels, u64 seed, u64 start, u32 count, u32 classes, long long label) {
    FOR_EACH(row, count) {
        const u64 word = philox(0, LABEL_STREAM, start + row, seed).word[0];
        labels[row] = label < 0 ? (long long)(word * classes >> 32) : label;
    }
}

INLINE unsigned char pixel(float value) {
    return (unsigned char)fminf(fmaxf(rintf((value + 1.0f) * 127.5f), 0.0f), 255.0f);
}

// Pixels, (count, size, channels), of images in [-1, 1], (count, channels, size), count * size *
// channels values in all: round-half-even((x + 1) * 127.5), clipped to 0..255.
// An item is four pixels, one after the other.
KERNEL images_to_pixels(
    unsigned char *pixels, const float *__restrict__ images, u32 values, u32 channels, u32 size) {
    FOR_EACH(item, (values + 3) / 4) {
#ifdef __CUDACC__
        if (channels == 1 && (u64)pixels % 4 == 0 && 4 * item + 4 <= values) {
            const float4 four = ((const float4 *)images)[item];
            ((uchar4 *)pixels)[item] =
                make_uchar4(pixel(four.x), pixel(four.y), pixel(four.z), pixel(four.w));
            return;
        }
#endif
        for (u32 i = 4 * item; i < 4 * item + 4 && i < values; ++i) {
            u32 source = i;
            if (channels > 1) {
                const u32 place = i % (channels * size);
                source = i - place + place % channels * size + place / channels;
            }
            pixels[i] = pixel(images[source]);
        }
    }
}
