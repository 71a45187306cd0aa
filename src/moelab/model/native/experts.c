/* Experts: SwiGLU feed-forwards on the rows that chose them, and the dense feed-forward as one expert of all rows. */

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
    vf d_gate = {0};
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
            d_gate += d * act;
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
    return hsum(d_gate);
}

/* Row r of the sorted rows belongs to token order[r] / top_k; without an order there is one expert and r is the token. */
INLINE long token_of(const int64_t *order, long r, long top_k) { return order ? order[r] / top_k : r; }

static void add_into(float *out, const float *parts, long n_parts, long size) {
    for (long p = 0; p < n_parts; p++)
        for (long i = 0; i < size; i++) out[i] += parts[p * size + i];
}

/* A row's activations at place p of a block of m rows: into panels of B (f/NR, m, NR), for the gradient of `down`. */
INLINE void spread(const float *act, long f, long p, long m, float *panels) {
    long j = 0;
    for (; j + NR <= f; j += NR) {
        store(panels + j * m + p * NR, load(act + j));
        store(panels + j * m + p * NR + VL, load(act + j + VL));
    }
    for (; j < f; j += NR)
        for (long c = 0; c < NR; c++) panels[j * m + p * NR + c] = j + c < f ? act[j + c] : 0.0f;
}

/* y (tokens, d) = sum over the sorted rows of gate * down(swiglu(first x)); y must start at zero where rows are routed; h
 * (rows, 2f) is kept. first (E, 2f, d), down (E, d, f), gates (tokens * top_k,) in the order of the choices, or NULL
 * for 1. Thread t takes the t-th part of the rows, so that no routing leaves one idle. */
void experts(const float *x, const float *first, const float *down, const float *gates, const int64_t *order,
             const int64_t *offsets, float *y, float *h, long tokens, long top_k, long n_experts, long d, long f,
             int threads) {
    long n_rows = offsets[n_experts], extra = order ? threads - 1 : 0;
    float *parts = extra ? calloc(extra * tokens * d, sizeof(float)) : NULL;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static, 1)
    for (long t = 0; t < threads; t++) {
        long lo = n_rows * t / threads, hi = n_rows * (t + 1) / threads;
        float *sum = t && order ? parts + (t - 1) * tokens * d : y;
        float *w1 = room(panels_b(d, 2 * f)), *w2 = room(panels_b(f, d));
        float *xa = room(panels_a(MC, d)), *acts = room(panels_a(MC, f)), *act = room(MR * f);
        const float **w_rows = malloc(sizeof(float *) * (2 * f > d ? 2 * f : d)), *x_rows[MC], *act_rows[MR];
        float *h_rows[MC], *y_rows[MC];
        row_pointers(act, f, MR, act_rows);
        for (long e = 0; e < n_experts; e++) {
            long begin = offsets[e] > lo ? offsets[e] : lo, end = least(offsets[e + 1], hi);
            if (begin >= end) continue;
            row_pointers(first + e * 2 * f * d, d, 2 * f, w_rows);
            pack_bt(w_rows, 0, d, 2 * f, w1);
            row_pointers(down + e * d * f, f, d, w_rows);
            pack_bt(w_rows, 0, f, d, w2);
            for (long r = begin; r < end; r += MC) {
                long m = least(MC, end - r);
                for (long i = 0; i < m; i++) {
                    long token = token_of(order, r + i, top_k);
                    x_rows[i] = x + token * d;
                    y_rows[i] = sum + token * d;
                    h_rows[i] = h + (r + i) * 2 * f;
                }
                pack_a(x_rows, 0, m, d, xa);
                product(m, 2 * f, d, xa, d, w1, d, h_rows, 0, 0);
                for (long i = 0; i < m; i += MR) {
                    long count = least(MR, m - i);
                    for (long c = 0; c < count; c++)
                        swiglu_row(h_rows[i + c], gates ? gates[order[r + i + c]] : 1.0f, act + c * f, NULL, NULL, f);
                    pack_a(act_rows, 0, count, f, acts + i * f);
                }
                product(m, d, f, acts, f, w2, f, y_rows, 0, order != NULL);
            }
        }
        free(w1);
        free(w2);
        free(xa);
        free(acts);
        free(act);
        free(w_rows);
    }
    if (parts) add_into(y, parts, extra, tokens * d);
    free(parts);
}

/* Gradients of `experts`. dx must start at zero where rows are routed; d_first and d_down are written whole; d_gates
 * (tokens * top_k,) is written where gates are. A thread that begins inside an expert leaves its part of that expert's
 * weight gradients aside, and they are added at the end, always in the same order. */
void experts_backward(const float *dy, const float *x, const float *first, const float *down, const float *gates,
                      const int64_t *order, const int64_t *offsets, const float *h, float *dx, float *d_first,
                      float *d_down, float *d_gates, long tokens, long top_k, long n_experts, long d, long f,
                      int threads) {
    long n_rows = offsets[n_experts], extra = order ? threads - 1 : 0, size = 3 * d * f;
    float *parts = extra ? calloc(extra * tokens * d, sizeof(float)) : NULL;
    float *aside = threads > 1 ? malloc(sizeof(float) * threads * size) : NULL;
    long *cut = malloc(sizeof(long) * threads); /* the expert that a thread's part aside belongs to, or -1 */
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static, 1)
    for (long t = 0; t < threads; t++) {
        long lo = n_rows * t / threads, hi = n_rows * (t + 1) / threads, wide = 2 * f > d ? 2 * f : d;
        float *sum = t && order ? parts + (t - 1) * tokens * d : dx;
        float *w1 = room(panels_b(2 * f, d)), *w2 = room(panels_b(d, f));
        float *rows_a = room(panels_a(MC, wide)), *rows_t = room(panels_a(wide, MC + 1)), *rows_b = room(panels_b(MC, wide));
        float *act = room(f), *dh = room(MR * 2 * f), *dh_t = room(panels_a(2 * f, MC + 1)), *dh_a = room(panels_a(MC, 2 * f));
        float *d_act = room(MC * f), *d_act_rows[MC], *dx_rows[MC], **to = malloc(sizeof(float *) * wide);
        const float **w_rows = malloc(sizeof(float *) * wide), *x_rows[MC], *dy_rows[MC], *dh_rows[MR];
        row_pointers(dh, 2 * f, MR, dh_rows);
        for (long i = 0; i < MC; i++) d_act_rows[i] = d_act + i * f;
        cut[t] = -1;
        for (long e = 0; e < n_experts; e++) {
            long begin = offsets[e] > lo ? offsets[e] : lo, end = least(offsets[e + 1], hi);
            float *to_first = d_first + e * 2 * f * d, *to_down = d_down + e * d * f;
            if (offsets[e] == offsets[e + 1] && t == 0) {
                memset(to_first, 0, sizeof(float) * 2 * f * d);
                memset(to_down, 0, sizeof(float) * f * d);
            }
            if (begin >= end) continue;
            if (begin > offsets[e]) {
                cut[t] = e;
                to_first = aside + t * size;
                to_down = to_first + 2 * f * d;
            }
            row_pointers(first + e * 2 * f * d, d, 2 * f, w_rows);
            pack_b(w_rows, 0, 2 * f, d, w1, 2 * f);
            row_pointers(down + e * d * f, f, d, w_rows);
            pack_b(w_rows, 0, d, f, w2, d);
            for (long r = begin; r < end; r += MC) {
                long m = least(MC, end - r);
                for (long i = 0; i < m; i++) {
                    long token = token_of(order, r + i, top_k);
                    x_rows[i] = x + token * d;
                    dy_rows[i] = dy + token * d;
                    dx_rows[i] = sum + token * d;
                }
                pack_a(dy_rows, 0, m, d, rows_a);
                product(m, f, d, rows_a, d, w2, d, d_act_rows, 0, 0);
                for (long i = 0; i < m; i += MR) {
                    long count = least(MR, m - i);
                    for (long c = 0; c < count; c++) {
                        float gate = gates ? gates[order[r + i + c]] : 1.0f;
                        const float *row = h + (r + i + c) * 2 * f;
                        float d_gate = swiglu_row(row, gate, act, d_act_rows[i + c], dh + c * 2 * f, f);
                        if (gates) d_gates[order[r + i + c]] = d_gate;
                        spread(act, f, i + c, m, rows_b);
                    }
                    pack_a(dh_rows, 0, count, 2 * f, dh_a + i * 2 * f);
                    pack_at(dh_rows, 0, 2 * f, count, dh_t + i * MR, m + 1);
                }
                pack_at(dy_rows, 0, d, m, rows_t, m + 1);
                for (long i = 0; i < d; i++) to[i] = to_down + i * f;
                product(d, f, m, rows_t, m + 1, rows_b, m, to, 0, r > begin);
                pack_b(x_rows, 0, m, d, rows_b, m);
                for (long i = 0; i < 2 * f; i++) to[i] = to_first + i * d;
                product(2 * f, d, m, dh_t, m + 1, rows_b, m, to, 0, r > begin);
                product(m, d, 2 * f, dh_a, 2 * f, w1, 2 * f, dx_rows, 0, order != NULL);
            }
        }
        free(w1);
        free(w2);
        free(rows_a);
        free(rows_t);
        free(rows_b);
        free(act);
        free(dh);
        free(dh_t);
        free(dh_a);
        free(d_act);
        free(to);
        free(w_rows);
    }
    for (long t = 0; t < threads; t++) {
        if (cut[t] < 0) continue;
        add_into(d_first + cut[t] * 2 * f * d, aside + t * size, 1, 2 * f * d);
        add_into(d_down + cut[t] * d * f, aside + t * size + 2 * f * d, 1, d * f);
    }
    if (parts) add_into(dx, parts, extra, tokens * d);
    free(parts);
    free(aside);
    free(cut);
}
