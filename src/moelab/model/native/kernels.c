/* moelab's CPU kernels, fp32. Plain C with GCC's vector extension: compiled once per machine by `native/build.py`.
 *
 * What a small model spends its time on is not products but the many short passes between them; each function here is
 * one such chain of passes done in one go, row by row, while the row is in cache. Every function has a reference in
 * PyTorch beside its caller, and tests hold the two together. All pointers are to contiguous memory unless a stride is given.
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
#define NR (2 * VL) /* columns of a packed panel */
#define MR 6        /* rows of a register tile */
#define KC 256      /* depth of a block of a product */
#define MC 96       /* rows of a block */
#define PAD 16      /* floats after a row, so that a column of rows does not fall into one cache set */
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

/* ---- products ------------------------------------------------------------------------------------------------ */

/* B (k, n), element (p, j) at b[p * rb + j * cb], as panels of NR columns: (n/NR, k, NR), the last one zero-padded. */
static void pack(const float *b, long rb, long cb, long k, long n, float *out) {
    for (long j = 0; j < n; j += NR) {
        long w = n - j < NR ? n - j : NR;
        if (cb == 1) {
            for (long p = 0; p < k; p++) {
                memcpy(out + p * NR, b + p * rb + j, w * sizeof(float));
                if (w < NR) memset(out + p * NR + w, 0, (NR - w) * sizeof(float));
            }
        } else {
            for (long p = 0; p < k; p += VL) {
                long depth = k - p < VL ? k - p : VL;
                for (long c = 0; c < NR; c++)
                    for (long q = 0; q < depth; q++)
                        out[(p + q) * NR + c] = c < w ? b[(p + q) * rb + (j + c) * cb] : 0.0f;
            }
        }
        out += k * NR;
    }
}

INLINE void tile(int rows, long k, const float *a, long ra, long ca, const float *panel, float *c, long ldc, long w,
                 int add) {
    vf acc[MR][2];
    for (int i = 0; i < rows; i++) acc[i][0] = acc[i][1] = (vf){0};
    for (long p = 0; p < k; p++) {
        vf b0 = load(panel + p * NR), b1 = load(panel + p * NR + VL);
        for (int i = 0; i < rows; i++) {
            float x = a[i * ra + p * ca];
            acc[i][0] += x * b0;
            acc[i][1] += x * b1;
        }
    }
    for (int i = 0; i < rows; i++) {
        float *row = c + i * ldc;
        if (w == NR) {
            if (add) { acc[i][0] += load(row); acc[i][1] += load(row + VL); }
            store(row, acc[i][0]);
            store(row + VL, acc[i][1]);
        } else {
            float last[NR];
            store(last, acc[i][0]);
            store(last + VL, acc[i][1]);
            for (long j = 0; j < w; j++) row[j] = add ? row[j] + last[j] : last[j];
        }
    }
}

/* C (m, n) = or += A (m, k) B, with A's element (i, p) at a[i * ra + p * ca] and B packed. */
static void product(long m, long n, long k, const float *a, long ra, long ca, const float *packed, float *c, long ldc,
                    int add) {
    for (long p = 0; p < k || p == 0; p += KC) {
        long depth = k - p < KC ? k - p : KC;
        int more = add || p > 0;
        for (long j = 0; j < n; j += NR) {
            const float *panel = packed + (j / NR) * k * NR + p * NR;
            long w = n - j < NR ? n - j : NR;
            const float *block = a + p * ca;
            long i = 0;
            for (; i + MR <= m; i += MR)
                tile(MR, depth, block + i * ra, ra, ca, panel, c + i * ldc + j, ldc, w, more);
            const float *rest = block + i * ra;
            float *out = c + i * ldc + j;
            switch (m - i) {
            case 5: tile(5, depth, rest, ra, ca, panel, out, ldc, w, more); break;
            case 4: tile(4, depth, rest, ra, ca, panel, out, ldc, w, more); break;
            case 3: tile(3, depth, rest, ra, ca, panel, out, ldc, w, more); break;
            case 2: tile(2, depth, rest, ra, ca, panel, out, ldc, w, more); break;
            case 1: tile(1, depth, rest, ra, ca, panel, out, ldc, w, more); break;
            }
        }
    }
}

static long panels(long k, long n) { return (n + NR - 1) / NR * NR * k; }

/* For the test and the benchmark of the product itself: C (m, n) = A (m, k) B (k, n). */
void plain_product(const float *a, const float *b, float *c, long m, long n, long k) {
    float *packed = malloc(sizeof(float) * panels(k, n));
    pack(b, n, 1, k, n, packed);
    for (long i = 0; i < m; i += MC) product(m - i < MC ? m - i : MC, n, k, a + i * k, k, 1, packed, c + i * n, n, 0);
    free(packed);
}

/* ---- RMSNorm ------------------------------------------------------------------------------------------------- */

/* y = x * inv * w with inv (rows,) = 1/rms(x), kept for the backward pass. */
void rms_norm(const float *restrict x, const float *restrict w, float *restrict y, float *restrict inv, long rows,
              long d, float eps, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (long r = 0; r < rows; r++) {
        const float *in = x + r * d;
        float *out = y + r * d, s = 0;
        for (long i = 0; i < d; i++) s += in[i] * in[i];
        float scale = inv[r] = 1.0f / sqrtf(s / d + eps);
        for (long i = 0; i < d; i++) out[i] = in[i] * scale * w[i];
    }
}

/* dx (rows, d); dw (d,) is added to and must start at zero. */
void rms_norm_backward(const float *restrict dy, const float *restrict x, const float *restrict w,
                       const float *restrict inv, float *restrict dx, float *restrict dw, long rows, long d) {
    for (long r = 0; r < rows; r++) {
        const float *g = dy + r * d, *in = x + r * d;
        float *out = dx + r * d, scale = inv[r], s = 0;
        for (long i = 0; i < d; i++) {
            s += g[i] * w[i] * in[i];
            dw[i] += g[i] * in[i] * scale;
        }
        float k = s * scale * scale * scale / d;
        for (long i = 0; i < d; i++) out[i] = g[i] * w[i] * scale - in[i] * k;
    }
}

/* ---- rotary positions, with RMSNorm of each head before them where w is given ----------------------------------- */

/* x, y (rows, heads, a); cos, sin (length, a/2), row r has position r % length; inv (rows, heads) if w. */
void rotary(const float *restrict x, const float *restrict w, const float *restrict cosine,
            const float *restrict sine, float *restrict y, float *restrict inv, long rows, long heads, long a,
            long length, float eps) {
    long half = a / 2;
    float row[a];
    for (long r = 0; r < rows; r++) {
        const float *c = cosine + r % length * half, *s = sine + r % length * half;
        for (long h = 0; h < heads; h++) {
            const float *in = x + (r * heads + h) * a;
            float *out = y + (r * heads + h) * a;
            if (w) {
                float sum = 0;
                for (long i = 0; i < a; i++) sum += in[i] * in[i];
                float scale = inv[r * heads + h] = 1.0f / sqrtf(sum / a + eps);
                for (long i = 0; i < a; i++) row[i] = in[i] * scale * w[i];
                in = row;
            }
            for (long i = 0; i < half; i++) {
                float u = in[i], v = in[half + i];
                out[i] = u * c[i] - v * s[i];
                out[half + i] = v * c[i] + u * s[i];
            }
        }
    }
}

/* dx from dy; dw (a,) is added to and must start at zero. */
void rotary_backward(const float *restrict dy, const float *restrict x, const float *restrict w,
                     const float *restrict cosine, const float *restrict sine, const float *restrict inv,
                     float *restrict dx, float *restrict dw, long rows, long heads, long a, long length) {
    long half = a / 2;
    float row[a];
    for (long r = 0; r < rows; r++) {
        const float *c = cosine + r % length * half, *s = sine + r % length * half;
        for (long h = 0; h < heads; h++) {
            const float *g = dy + (r * heads + h) * a, *in = x + (r * heads + h) * a;
            float *out = dx + (r * heads + h) * a, *back = w ? row : out;
            for (long i = 0; i < half; i++) {
                float u = g[i], v = g[half + i];
                back[i] = u * c[i] + v * s[i];
                back[half + i] = v * c[i] - u * s[i];
            }
            if (w) {
                float scale = inv[r * heads + h], sum = 0;
                for (long i = 0; i < a; i++) {
                    sum += back[i] * w[i] * in[i];
                    dw[i] += back[i] * in[i] * scale;
                }
                float k = sum * scale * scale * scale / a;
                for (long i = 0; i < a; i++) out[i] = back[i] * w[i] * scale - in[i] * k;
            }
        }
    }
}

/* ---- causal attention ---------------------------------------------------------------------------------------- */

#define QB 48 /* queries handled together */

/* The largest of n values; NaN may be passed over (it returns through the exponentials). */
static float max_row(const float *p, long n) {
    vf top = splat(-INFINITY);
    long j = 0;
    for (; j + VL <= n; j += VL) {
        vf x = load(p + j);
        top = choose(x > top, x, top);
    }
    float best = -INFINITY;
    for (int i = 0; i < VL; i++) best = top[i] > best ? top[i] : best;
    for (; j < n; j++) best = p[j] > best ? p[j] : best;
    return best;
}

/* p[j] = exp(s[j] - shift) for j < n, zero from there to the padded width; returns their sum. */
static float exp_row(float *p, long n, long width, float shift) {
    vf sum = {0};
    long j = 0;
    for (; j + VL <= n; j += VL) {
        vf e = vexp(load(p + j) - shift);
        store(p + j, e);
        sum += e;
    }
    float total = hsum(sum);
    if (j < n) {
        float last[VL];
        for (int i = 0; i < VL; i++) last[i] = j + i < n ? p[j + i] : shift;
        vf e = vexp(load(last) - shift);
        for (int i = 0; i < VL; i++)
            if (j + i < n) { p[j + i] = e[i]; total += e[i]; }
    }
    for (j = n; j < width; j++) p[j] = 0;
    return total;
}

/* q, out (batch, length, heads, a); k, v (batch, length, kv, a); log_z (batch, heads, length) for the backward pass. */
void attention(const float *q, const float *k, const float *v, float *out, float *log_z, long batch, long length,
               long heads, long kv, long a, float scale, int threads) {
    long group = heads / kv, q_row = heads * a, kv_row = kv * a;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (long bg = 0; bg < batch * kv; bg++) {
        long b = bg / kv, g = bg % kv;
        const float *keys = k + b * length * kv_row + g * a, *values = v + b * length * kv_row + g * a;
        float *kt = malloc(sizeof(float) * panels(a, length)), *vp = malloc(sizeof(float) * panels(length, a));
        long width = (length + NR - 1) / NR * NR;
        float *s = malloc(sizeof(float) * QB * width);
        pack(keys, 1, kv_row, a, length, kt);
        pack(values, kv_row, 1, length, a, vp);
        for (long h = g * group; h < (g + 1) * group; h++) {
            for (long i0 = 0; i0 < length; i0 += QB) {
                long m = length - i0 < QB ? length - i0 : QB, n = i0 + m;
                const float *queries = q + (b * length + i0) * q_row + h * a;
                float *o = out + (b * length + i0) * q_row + h * a;
                product(m, n, a, queries, q_row, 1, kt, s, width, 0);
                float scales[QB];
                for (long i = 0; i < m; i++) {
                    float *row = s + i * width;
                    long seen = i0 + i + 1;
                    for (long j = 0; j < seen; j++) row[j] *= scale;
                    float top = max_row(row, seen);
                    float sum = exp_row(row, seen, n, top);
                    log_z[(b * heads + h) * length + i0 + i] = top + logf(sum);
                    scales[i] = 1.0f / sum;
                }
                /* values are packed for the whole length: products of depth n walk the same panels */
                for (long j = 0; j < a; j += NR) {
                    const float *panel = vp + (j / NR) * length * NR;
                    long w = a - j < NR ? a - j : NR;
                    product(m, w, n, s, width, 1, panel, o + j, q_row, 0);
                }
                for (long i = 0; i < m; i++)
                    for (long j = 0; j < a; j++) o[i * q_row + j] *= scales[i];
            }
        }
        free(kt);
        free(vp);
        free(s);
    }
}

/* Gradients of `attention`. dk and dv must start at zero. */
void attention_backward(const float *d_out, const float *q, const float *k, const float *v, const float *out,
                        const float *log_z, float *dq, float *dk, float *dv, long batch, long length, long heads,
                        long kv, long a, float scale, int threads) {
    long group = heads / kv, q_row = heads * a, kv_row = kv * a;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (long bg = 0; bg < batch * kv; bg++) {
        long b = bg / kv, g = bg % kv, base = b * length * kv_row + g * a;
        const float *keys = k + base, *values = v + base;
        long width = (length + NR - 1) / NR * NR;
        float *kt = malloc(sizeof(float) * panels(a, length)), *vt = malloc(sizeof(float) * panels(a, length));
        float *kp = malloc(sizeof(float) * panels(length, a));
        float *p = malloc(sizeof(float) * QB * width), *ds = malloc(sizeof(float) * QB * width);
        float *qp = malloc(sizeof(float) * panels(QB, a)), *gp = malloc(sizeof(float) * panels(QB, a));
        pack(keys, 1, kv_row, a, length, kt);
        pack(values, 1, kv_row, a, length, vt);
        pack(keys, kv_row, 1, length, a, kp);
        for (long h = g * group; h < (g + 1) * group; h++) {
            for (long i0 = 0; i0 < length; i0 += QB) {
                long m = length - i0 < QB ? length - i0 : QB, n = i0 + m, start = (b * length + i0) * q_row + h * a;
                const float *queries = q + start, *gradient = d_out + start, *o = out + start;
                product(m, n, a, queries, q_row, 1, kt, p, width, 0);
                product(m, n, a, gradient, q_row, 1, vt, ds, width, 0);
                for (long i = 0; i < m; i++) {
                    float *row = p + i * width, *slope = ds + i * width, delta = 0;
                    long seen = i0 + i + 1;
                    for (long j = 0; j < a; j++) delta += gradient[i * q_row + j] * o[i * q_row + j];
                    for (long j = 0; j < seen; j++) row[j] *= scale;
                    exp_row(row, seen, n, log_z[(b * heads + h) * length + i0 + i]);
                    for (long j = 0; j < n; j++) slope[j] = row[j] * (slope[j] - delta) * scale;
                }
                for (long j = 0; j < a; j += NR)
                    product(m, a - j < NR ? a - j : NR, n, ds, width, 1, kp + (j / NR) * length * NR, dq + start + j,
                            q_row, 0);
                pack(queries, q_row, 1, m, a, qp);
                pack(gradient, q_row, 1, m, a, gp);
                product(n, a, m, ds, 1, width, qp, dk + base, kv_row, 1);
                product(n, a, m, p, 1, width, gp, dv + base, kv_row, 1);
            }
        }
        free(kt);
        free(vt);
        free(kp);
        free(p);
        free(ds);
        free(qp);
        free(gp);
    }
}

/* ---- softmax cross-entropy ----------------------------------------------------------------------------------- */

/* logits (rows, vocab) become softmax - one-hot(target), 0 where the target is negative; loss and log_z (rows,). */
void cross_entropy_slope(float *restrict logits, const int64_t *restrict targets, float *restrict loss,
                         float *restrict log_z, long rows, long vocab, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (long r = 0; r < rows; r++) {
        float *row = logits + r * vocab, top = max_row(row, vocab);
        float wanted = targets[r] >= 0 ? row[targets[r]] : 0;
        float sum = exp_row(row, vocab, vocab, top), z = top + logf(sum), scale = targets[r] >= 0 ? 1.0f / sum : 0.0f;
        for (long j = 0; j < vocab; j++) row[j] *= scale;
        if (targets[r] >= 0) row[targets[r]] -= 1.0f;
        log_z[r] = z;
        loss[r] = targets[r] >= 0 ? z - wanted : 0.0f;
    }
}

/* ---- experts: SwiGLU feed-forwards on the rows that chose them --------------------------------------------------- */

/* Group the n_rows = tokens * top_k choices by expert, in token order: order (n_rows,) and offsets (E + 1). */
void sort_by_expert(const int64_t *chosen, int64_t *order, int64_t *offsets, long n_rows, long n_experts) {
    memset(offsets, 0, sizeof(int64_t) * (n_experts + 1));
    for (long i = 0; i < n_rows; i++) offsets[chosen[i] + 1]++;
    for (long e = 0; e < n_experts; e++) offsets[e + 1] += offsets[e];
    int64_t *next = malloc(sizeof(int64_t) * n_experts);
    memcpy(next, offsets, sizeof(int64_t) * n_experts);
    for (long i = 0; i < n_rows; i++) order[next[chosen[i]]++] = i;
    free(next);
}

/* out (f) = silu(h[:f]) h[f:] gate; with d_out: h's gradient in dh (2f), and the return value is the gate's. */
INLINE float swiglu_row(const float *h, float gate, float *out, const float *d_out, float *dh, long f) {
    float d_gate = 0;
    for (long j = 0; j < f; j += VL) {
        float tail[4][VL];
        long w = f - j < VL ? f - j : VL;
        const float *gp = h + j, *up = h + f + j, *dp = d_out ? d_out + j : NULL;
        if (w < VL) {
            memset(tail, 0, sizeof tail);
            memcpy(tail[0], gp, w * sizeof(float));
            memcpy(tail[1], up, w * sizeof(float));
            if (dp) memcpy(tail[2], dp, w * sizeof(float));
            gp = tail[0], up = tail[1], dp = dp ? tail[2] : NULL;
        }
        vf g = load(gp), u = load(up), sigmoid = 1.0f / (1.0f + vexp(-g)), silu = g * sigmoid, act = silu * u;
        vf y = act * gate, dg = {0}, du = {0};
        if (dp) {
            vf d = load(dp), da = d * gate;
            d_gate += hsum(d * act);
            du = da * silu;
            dg = da * u * (sigmoid + silu * (1.0f - sigmoid));
        }
        if (w == VL) {
            store(out + j, y);
            if (dp) { store(dh + j, dg); store(dh + f + j, du); }
        } else {
            for (long i = 0; i < w; i++) {
                out[j + i] = y[i];
                if (dp) { dh[j + i] = dg[i]; dh[f + j + i] = du[i]; }
            }
        }
    }
    return d_gate;
}

/* Row r of the sorted rows belongs to token order[r] / top_k; without an order there is one expert and r is the token. */
INLINE long token_of(const int64_t *order, long r, long top_k) { return order ? order[r] / top_k : r; }

/* The experts whose rows thread t of n takes: contiguous, about equally many rows, the same for the same routing. */
static long first_expert(const int64_t *offsets, long n_experts, long t, long n) {
    long e = 0;
    while (e < n_experts && offsets[e] * n < offsets[n_experts] * t) e++;
    return t == n ? n_experts : e;
}

static void add_into(float *out, const float *parts, long n_parts, long size) {
    for (long p = 0; p < n_parts; p++)
        for (long i = 0; i < size; i++) out[i] += parts[p * size + i];
}

/* Rows that go through an expert together: few while its weights stay in cache, more where they are read again from
 * memory for every block. */
static long block_rows(long d, long f) { return d * f > 65536 ? KC : MC; }

/* y (tokens, d) = sum over the sorted rows of gate * down(swiglu(first x)); y must start at zero, h (rows, 2f) is kept.
 * first (E, 2f, d), down (E, d, f), gates (tokens * top_k,) in the order of the choices, or NULL for 1. */
void experts(const float *x, const float *first, const float *down, const float *gates, const int64_t *order,
             const int64_t *offsets, float *y, float *h, long tokens, long top_k, long n_experts, long d, long f,
             int threads) {
    long mc = block_rows(d, f);
    float *parts = threads > 1 ? calloc((threads - 1) * tokens * d, sizeof(float)) : NULL;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static, 1)
    for (long t = 0; t < threads; t++) {
        float *sum = t ? parts + (t - 1) * tokens * d : y;
        float *w1 = malloc(sizeof(float) * panels(d, 2 * f)), *w2 = malloc(sizeof(float) * panels(f, d));
        float *rows = malloc(sizeof(float) * mc * d), *act = malloc(sizeof(float) * mc * f);
        float *result = malloc(sizeof(float) * mc * d);
        long last = first_expert(offsets, n_experts, t + 1, threads);
        for (long e = first_expert(offsets, n_experts, t, threads); e < last; e++) {
            if (offsets[e] == offsets[e + 1]) continue;
            pack(first + e * 2 * f * d, 1, d, d, 2 * f, w1);
            pack(down + e * d * f, 1, f, f, d, w2);
            for (long r = offsets[e]; r < offsets[e + 1]; r += mc) {
                long m = offsets[e + 1] - r < mc ? offsets[e + 1] - r : mc;
                for (long i = 0; i < m; i++)
                    memcpy(rows + i * d, x + token_of(order, r + i, top_k) * d, d * sizeof(float));
                product(m, 2 * f, d, rows, d, 1, w1, h + r * 2 * f, 2 * f, 0);
                for (long i = 0; i < m; i++)
                    swiglu_row(h + (r + i) * 2 * f, gates ? gates[order[r + i]] : 1.0f, act + i * f, NULL, NULL, f);
                product(m, d, f, act, f, 1, w2, result, d, 0);
                for (long i = 0; i < m; i++) {
                    float *to = sum + token_of(order, r + i, top_k) * d;
                    for (long j = 0; j < d; j++) to[j] += result[i * d + j];
                }
            }
        }
        free(w1);
        free(w2);
        free(rows);
        free(act);
        free(result);
    }
    if (parts) add_into(y, parts, threads - 1, tokens * d);
    free(parts);
}

/* Gradients of `experts`. dx, d_first and d_down must start at zero; d_gates (tokens * top_k,) is written where gates are. */
void experts_backward(const float *dy, const float *x, const float *first, const float *down, const float *gates,
                      const int64_t *order, const int64_t *offsets, const float *h, float *dx, float *d_first,
                      float *d_down, float *d_gates, long tokens, long top_k, long n_experts, long d, long f,
                      int threads) {
    long mc = block_rows(d, f);
    float *parts = threads > 1 ? calloc((threads - 1) * tokens * d, sizeof(float)) : NULL;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static, 1)
    for (long t = 0; t < threads; t++) {
        float *sum = t ? parts + (t - 1) * tokens * d : dx;
        float *w1 = malloc(sizeof(float) * panels(2 * f, d)), *w2 = malloc(sizeof(float) * panels(d, f));
        long ld = d + PAD, lh = 2 * f + PAD;
        float *x_rows = malloc(sizeof(float) * mc * ld), *dy_rows = malloc(sizeof(float) * mc * ld);
        float *act = malloc(sizeof(float) * mc * f), *d_act = malloc(sizeof(float) * mc * f);
        float *dh = malloc(sizeof(float) * mc * lh), *result = malloc(sizeof(float) * mc * d);
        float *packed = malloc(sizeof(float) * (panels(mc, d) + panels(mc, f)));
        long last = first_expert(offsets, n_experts, t + 1, threads);
        for (long e = first_expert(offsets, n_experts, t, threads); e < last; e++) {
            if (offsets[e] == offsets[e + 1]) continue;
            pack(first + e * 2 * f * d, d, 1, 2 * f, d, w1);
            pack(down + e * d * f, f, 1, d, f, w2);
            for (long r = offsets[e]; r < offsets[e + 1]; r += mc) {
                long m = offsets[e + 1] - r < mc ? offsets[e + 1] - r : mc;
                for (long i = 0; i < m; i++) {
                    long token = token_of(order, r + i, top_k);
                    memcpy(x_rows + i * ld, x + token * d, d * sizeof(float));
                    memcpy(dy_rows + i * ld, dy + token * d, d * sizeof(float));
                }
                product(m, f, d, dy_rows, ld, 1, w2, d_act, f, 0);
                for (long i = 0; i < m; i++) {
                    float gate = gates ? gates[order[r + i]] : 1.0f;
                    float d_gate = swiglu_row(h + (r + i) * 2 * f, gate, act + i * f, d_act + i * f, dh + i * lh, f);
                    if (gates) d_gates[order[r + i]] = d_gate;
                }
                pack(act, f, 1, m, f, packed);
                product(d, f, m, dy_rows, 1, ld, packed, d_down + e * d * f, f, 1);
                pack(x_rows, ld, 1, m, d, packed);
                product(2 * f, d, m, dh, 1, lh, packed, d_first + e * 2 * f * d, d, 1);
                product(m, d, 2 * f, dh, lh, 1, w1, result, d, 0);
                for (long i = 0; i < m; i++) {
                    float *to = sum + token_of(order, r + i, top_k) * d;
                    for (long j = 0; j < d; j++) to[j] += result[i * d + j];
                }
            }
        }
        free(w1);
        free(w2);
        free(x_rows);
        free(dy_rows);
        free(act);
        free(d_act);
        free(dh);
        free(result);
        free(packed);
    }
    if (parts) add_into(dx, parts, threads - 1, tokens * d);
    free(parts);
}
