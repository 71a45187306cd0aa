/* RMSNorm and rotary positions: one pass over a row while it is in cache. */

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
