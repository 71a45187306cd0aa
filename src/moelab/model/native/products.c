/* Vectors, exponentials, and the matrix product that all kernels share.
 *
 * Both operands of a product are packed first: A as panels of MR rows, B as panels of NR columns, each panel stored in the
 * order in which the inner loop reads it, so that it streams through the cache whatever the layout it came from. Rows
 * come as pointers, so gathering and scattering routed rows costs no pass of its own.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __AVX512F__
#define VL 16
#else
#define VL 8
#endif
typedef float vf __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef float v8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t i8 __attribute__((vector_size(32)));
#define NR (2 * VL) /* columns of a panel of B */
#define MR 6        /* rows of a panel of A */
#define KC 256      /* depth of a block: a panel of B of this depth stays in the first cache */
#define MC 180      /* rows of a block of A, which stays in the second */
#define INLINE static inline __attribute__((always_inline))

INLINE vf load(const float *p) { return *(const vf *)p; }
INLINE void store(float *p, vf v) { *(vf *)p = v; }
INLINE vf splat(float x) { return x - (vf){0}; }

INLINE vf choose(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }

/* exp to about 1 ulp (Cephes' polynomial); below -87 it is exp(-87), not 0; NaN stays NaN. */
INLINE vf vexp(vf x) {
    x = choose(x > splat(88.0f), splat(88.0f), x);
    x = choose(x < splat(-87.0f), splat(-87.0f), x);
    vi whole = __builtin_convertvector(x * 1.44269504088896341f + choose(x < 0.0f, splat(-0.5f), splat(0.5f)), vi);
    vf n = __builtin_convertvector(whole, vf);
    vf r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vf p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (vf)((whole + 127) << 23);
}

INLINE float hsum(vf v) {
    float s = 0;
    for (int i = 0; i < VL; i++) s += v[i];
    return s;
}

static long least(long a, long b) { return a < b ? a : b; }
static long round_up(long n, long unit) { return (n + unit - 1) / unit * unit; }

/* Room for n floats on a cache line, with the slack that packing may write beyond the end. */
static float *room(long n) {
    void *p = NULL;
    return posix_memalign(&p, 64, sizeof(float) * (n + 2 * NR)) ? NULL : p;
}

/* ---- packing ------------------------------------------------------------------------------------------------- */

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (i8){__VA_ARGS__})
#endif

INLINE void transpose(v8 *r) {
    v8 t[8], u[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = SHUFFLE(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        t[i + 1] = SHUFFLE(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            u[i + 2 * j] = SHUFFLE(t[i + j], t[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
            u[i + 2 * j + 1] = SHUFFLE(t[i + j], t[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    for (int i = 0; i < 4; i++) {
        r[i] = SHUFFLE(u[i], u[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        r[i + 4] = SHUFFLE(u[i], u[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

/* Columns of `count` <= 8 rows of length k become rows of 8 at a distance of `step` floats; the rest of the 8 is zero.
 * Eight floats are always written, so with step < 8 the next row must be written after. */
INLINE void interleave(const float *const *rows, int count, long from, long k, float *out, long step) {
    long p = 0;
    for (; p + 8 <= k; p += 8) {
        v8 r[8];
        for (int i = 0; i < 8; i++) r[i] = i < count ? *(const v8 *)(rows[i] + from + p) : (v8){0};
        transpose(r);
        for (int i = 0; i < 8; i++) *(v8 *)(out + (p + i) * step) = r[i];
    }
    for (; p < k; p++) {
        v8 r = {0};
        for (int i = 0; i < count; i++) r[i] = rows[i][from + p];
        *(v8 *)(out + p * step) = r;
    }
}

/* A (m, k), row i at rows[i] + from, as panels of MR rows: (m/MR, k, MR), the last one filled up with zeros. */
static void pack_a(const float *const *rows, long from, long m, long k, float *out) {
    for (long i = 0; i < m; i += MR, out += k * MR) {
        if (m - i >= MR)
            interleave(rows + i, MR, from, k, out, MR);
        else
            interleave(rows + i, m - i, from, k, out, MR);
    }
}

/* The same of A's transpose: rows[p] + from holds A's column p of k. A row of A is `lead` floats from the next in out's
 * panels (lead = k, or more where further columns follow). */
static void pack_at(const float *const *rows, long from, long m, long k, float *out, long lead) {
    for (long p0 = 0; p0 < k; p0 += 16) {
        long p1 = least(p0 + 16, k), i = 0;
        for (; i + 8 <= m; i += MR)
            for (long p = p0; p < p1; p++) *(v8 *)(out + i * lead + p * MR) = *(const v8 *)(rows[p] + from + i);
        for (; i < m; i += MR)
            for (long p = p0; p < p1; p++)
                for (long j = 0; j < MR; j++) out[i * lead + p * MR + j] = i + j < m ? rows[p][from + i + j] : 0.0f;
    }
}

/* B (k, n), row p at rows[p] + from, as panels of NR columns: (n/NR, lead, NR), the last one filled up with zeros. */
static void pack_b(const float *const *rows, long from, long k, long n, float *out, long lead) {
    for (long p0 = 0; p0 < k; p0 += 16) {
        long p1 = least(p0 + 16, k), j = 0;
        for (; j + NR <= n; j += NR)
            for (long p = p0; p < p1; p++) {
                store(out + j * lead + p * NR, load(rows[p] + from + j));
                store(out + j * lead + p * NR + VL, load(rows[p] + from + j + VL));
            }
        for (; j < n; j += NR)
            for (long p = p0; p < p1; p++)
                for (long c = 0; c < NR; c++) out[j * lead + p * NR + c] = j + c < n ? rows[p][from + j + c] : 0.0f;
    }
}

/* The same of B's transpose: rows[j] + from holds B's column j of n. */
static void pack_bt(const float *const *rows, long from, long k, long n, float *out) {
    for (long j = 0; j < n; j += NR, out += k * NR)
        for (long c = 0; c < NR; c += 8) {
            long count = n - j - c < 0 ? 0 : least(8, n - j - c);
            if (count == 8)
                interleave(rows + j + c, 8, from, k, out + c, NR);
            else
                interleave(rows + j + c, count, from, k, out + c, NR);
        }
}

/* Pointers to n rows that lie `step` floats apart. */
static void row_pointers(const float *base, long step, long n, const float **rows) {
    for (long i = 0; i < n; i++) rows[i] = base + i * step;
}

static long panels_a(long m, long k) { return round_up(m, MR) * k; }
static long panels_b(long k, long n) { return round_up(n, NR) * k; }

/* ---- product --------------------------------------------------------------------------------------------------- */

INLINE void tile(long k, const float *a, const float *panel, float *const *c, long j, int rows, long w, int add) {
    vf acc[MR][2];
    for (int i = 0; i < MR; i++) acc[i][0] = acc[i][1] = (vf){0};
    for (int i = 0; i < rows; i++) __builtin_prefetch(c[i] + j, 1);
    for (long p = 0; p < k; p++) {
        vf b0 = load(panel + p * NR), b1 = load(panel + p * NR + VL);
        for (int i = 0; i < MR; i++) {
            float x = a[p * MR + i];
            acc[i][0] += x * b0;
            acc[i][1] += x * b1;
        }
    }
    if (w == NR && rows == MR) {
        for (int i = 0; i < MR; i++) {
            float *row = c[i] + j;
            if (add) { acc[i][0] += load(row); acc[i][1] += load(row + VL); }
            store(row, acc[i][0]);
            store(row + VL, acc[i][1]);
        }
        return;
    }
    float last[MR][NR];
    for (int i = 0; i < MR; i++) {
        store(last[i], acc[i][0]);
        store(last[i] + VL, acc[i][1]);
    }
    for (int i = 0; i < rows; i++)
        for (long q = 0; q < w; q++) c[i][j + q] = add ? c[i][j + q] + last[i][q] : last[i][q];
}

/* C (m, n) = or += A B of depth k; A packed, lead_a floats deep, B packed, lead_b deep. Row i of C starts at c[i] + col. */
static void product(long m, long n, long k, const float *a, long lead_a, const float *b, long lead_b, float *const *c,
                    long col, int add) {
    for (long p = 0; p < k; p += KC) {
        long depth = least(KC, k - p);
        for (long i0 = 0; i0 < m; i0 += MC)
            for (long j = 0; j < n; j += NR) {
                const float *panel = b + j * lead_b + p * NR;
                for (long i = i0; i < least(m, i0 + MC); i += MR)
                    tile(depth, a + i * lead_a + p * MR, panel, c + i, col + j, least(MR, m - i), least(NR, n - j),
                         add || p > 0);
            }
    }
}
