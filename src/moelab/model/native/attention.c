/* Causal attention, forward and backward. */

#define QB 48 /* queries handled together */
#define PAD 16 /* floats after a row, so that a column of rows does not fall into one cache set */

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
        long b = bg / kv, g = bg % kv, base = b * length * kv_row + g * a, width = round_up(length, NR) + PAD;
        float *kt = room(panels_b(a, length)), *vp = room(panels_b(length, a));
        float *s = room(QB * width), *packed = room(panels_a(QB, length > a ? length : a));
        const float **rows = malloc(sizeof(float *) * length), *queries[QB];
        float *scores[QB], *result[QB];
        row_pointers(k + base, kv_row, length, rows);
        pack_bt(rows, 0, a, length, kt);
        row_pointers(v + base, kv_row, length, rows);
        pack_b(rows, 0, length, a, vp, length);
        for (long i = 0; i < QB; i++) scores[i] = s + i * width;
        for (long h = g * group; h < (g + 1) * group; h++) {
            for (long i0 = 0; i0 < length; i0 += QB) {
                long m = least(QB, length - i0), n = i0 + m, start = (b * length + i0) * q_row + h * a;
                row_pointers(q + start, q_row, m, queries);
                for (long i = 0; i < m; i++) result[i] = out + start + i * q_row;
                pack_a(queries, 0, m, a, packed);
                product(m, n, a, packed, a, kt, a, scores, 0, 0);
                float scales[QB];
                for (long i = 0; i < m; i++) {
                    float *row = scores[i];
                    long seen = i0 + i + 1;
                    for (long j = 0; j < seen; j++) row[j] *= scale;
                    float top = max_row(row, seen);
                    float sum = exp_row(row, seen, n, top);
                    log_z[(b * heads + h) * length + i0 + i] = top + logf(sum);
                    scales[i] = 1.0f / sum;
                }
                pack_a((const float **)scores, 0, m, n, packed);
                product(m, a, n, packed, n, vp, length, result, 0, 0);
                for (long i = 0; i < m; i++)
                    for (long j = 0; j < a; j++) result[i][j] *= scales[i];
            }
        }
        free(kt);
        free(vp);
        free(s);
        free(packed);
        free(rows);
    }
}

/* Gradients of `attention`. dk and dv must start at zero. */
void attention_backward(const float *d_out, const float *q, const float *k, const float *v, const float *out,
                        const float *log_z, float *dq, float *dk, float *dv, long batch, long length, long heads,
                        long kv, long a, float scale, int threads) {
    long group = heads / kv, q_row = heads * a, kv_row = kv * a;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (long bg = 0; bg < batch * kv; bg++) {
        long b = bg / kv, g = bg % kv, base = b * length * kv_row + g * a, width = round_up(length, NR) + PAD;
        float *kt = room(panels_b(a, length)), *vt = room(panels_b(a, length)), *kp = room(panels_b(length, a));
        float *p = room(QB * width), *ds = room(QB * width), *packed = room(panels_a(length, QB + 1) + panels_a(QB, length + a));
        float *qp = room(panels_b(QB, a)), *gp = room(panels_b(QB, a));
        const float **rows = malloc(sizeof(float *) * length), *queries[QB], *gradients[QB];
        float **to_k = malloc(sizeof(float *) * length), **to_v = malloc(sizeof(float *) * length);
        float *scores[QB], *slopes[QB], *to_q[QB];
        for (long i = 0; i < QB; i++) scores[i] = p + i * width, slopes[i] = ds + i * width;
        for (long i = 0; i < length; i++) to_k[i] = dk + base + i * kv_row, to_v[i] = dv + base + i * kv_row;
        row_pointers(v + base, kv_row, length, rows);
        pack_bt(rows, 0, a, length, vt);
        row_pointers(k + base, kv_row, length, rows);
        pack_bt(rows, 0, a, length, kt);
        pack_b(rows, 0, length, a, kp, length);
        for (long h = g * group; h < (g + 1) * group; h++) {
            for (long i0 = 0; i0 < length; i0 += QB) {
                long m = least(QB, length - i0), n = i0 + m, start = (b * length + i0) * q_row + h * a;
                row_pointers(q + start, q_row, m, queries);
                row_pointers(d_out + start, q_row, m, gradients);
                for (long i = 0; i < m; i++) to_q[i] = dq + start + i * q_row;
                pack_a(queries, 0, m, a, packed);
                product(m, n, a, packed, a, kt, a, scores, 0, 0);
                pack_a(gradients, 0, m, a, packed);
                product(m, n, a, packed, a, vt, a, slopes, 0, 0);
                for (long i = 0; i < m; i++) {
                    float *row = scores[i], *slope = slopes[i], delta = 0;
                    long seen = i0 + i + 1;
                    for (long j = 0; j < a; j++) delta += gradients[i][j] * out[start + i * q_row + j];
                    for (long j = 0; j < seen; j++) row[j] *= scale;
                    exp_row(row, seen, n, log_z[(b * heads + h) * length + i0 + i]);
                    for (long j = 0; j < n; j++) slope[j] = row[j] * (slope[j] - delta) * scale;
                }
                pack_a((const float **)slopes, 0, m, n, packed);
                product(m, a, n, packed, n, kp, length, to_q, 0, 0);
                pack_b(queries, 0, m, a, qp, m);
                pack_b(gradients, 0, m, a, gp, m);
                pack_at((const float **)slopes, 0, n, m, packed, m + 1);
                product(n, a, m, packed, m + 1, qp, m, to_k, 0, 1);
                pack_at((const float **)scores, 0, n, m, packed, m + 1);
                product(n, a, m, packed, m + 1, gp, m, to_v, 0, 1);
            }
        }
        free(kt);
        free(vt);
        free(kp);
        free(p);
        free(ds);
        free(packed);
        free(qp);
        free(gp);
        free(rows);
        free(to_k);
        free(to_v);
    }
}
