/* Linear layers and the cross-entropy of a linear head, forward and backward. */

/* y (rows, n) = x (rows, k) w^T, w (n, k). */
void linear(const float *x, const float *w, float *y, long rows, long n, long k, int threads) {
    const float **w_rows = malloc(sizeof(float *) * n);
    float *wt = room(panels_b(k, n));
    row_pointers(w, k, n, w_rows);
    pack_bt(w_rows, 0, k, n, wt);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *packed = room(panels_a(MC, k)), *to[MC];
        const float *from[MC];
#pragma omp for
        for (long r = 0; r < rows; r += MC) {
            long m = least(MC, rows - r);
            row_pointers(x + r * k, k, m, from);
            for (long i = 0; i < m; i++) to[i] = y + (r + i) * n;
            pack_a(from, 0, m, k, packed);
            product(m, n, k, packed, k, wt, k, to, 0, 0);
        }
        free(packed);
    }
    free(wt);
    free(w_rows);
}

/* dw (n, k) = or += dy^T x over all rows, for dw's rows from..to; dy rows start `step` floats apart. One thread's work. */
static void weight_product(const float *dy, long step, const float *x, float *dw, long rows, long from, long to, long k,
                           int add) {
    float *left = room(panels_a(MC, KC + 1)), *right = room(panels_b(KC, k)), *out[MC];
    const float *dy_rows[KC], *x_rows[KC];
    for (long n0 = from; n0 < to; n0 += MC) {
        long n1 = least(n0 + MC, to);
        for (long i = n0; i < n1; i++) out[i - n0] = dw + i * k;
        for (long r = 0; r < rows; r += KC) {
            long depth = least(KC, rows - r);
            row_pointers(dy + r * step, step, depth, dy_rows);
            row_pointers(x + r * k, k, depth, x_rows);
            pack_at(dy_rows, n0, n1 - n0, depth, left, depth + 1);
            pack_b(x_rows, 0, depth, k, right, depth);
            product(n1 - n0, k, depth, left, depth + 1, right, depth, out, 0, add || r > 0);
        }
    }
    free(left);
    free(right);
}

/* The rows of dw that thread t of `threads` makes: whole tiles. */
static long share(long n, long t, long threads) { return least(round_up(n * t / threads, MR), n); }

/* Gradients of `linear`: dx (rows, k) and dw (n, k), each left out where NULL. */
void linear_backward(const float *dy, const float *x, const float *w, float *dx, float *dw, long rows, long n, long k,
                     int threads) {
    const float **w_rows = malloc(sizeof(float *) * n);
    float *wn = dx ? room(panels_b(n, k)) : NULL;
    row_pointers(w, k, n, w_rows);
    if (dx) pack_b(w_rows, 0, n, k, wn, n);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *packed = room(panels_a(MC, n)), *to[MC];
        const float *from[MC];
#pragma omp for nowait
        for (long r = 0; r < (dx ? rows : 0); r += MC) {
            long m = least(MC, rows - r);
            row_pointers(dy + r * n, n, m, from);
            for (long i = 0; i < m; i++) to[i] = dx + (r + i) * k;
            pack_a(from, 0, m, n, packed);
            product(m, k, n, packed, n, wn, n, to, 0, 0);
        }
        free(packed);
#pragma omp for schedule(static, 1)
        for (long t = 0; t < (dw ? threads : 0); t++)
            weight_product(dy, n, x, dw, rows, share(n, t, threads), share(n, t + 1, threads), k, 0);
    }
    free(wn);
    free(w_rows);
}

/* logits (rows, vocab) `step` floats apart become softmax - one-hot(target), 0 where the target is negative; loss and
 * log_z (rows,). */
static void slope_row(float *row, long target, float *loss, float *log_z, long vocab) {
    float top = max_row(row, vocab), wanted = target >= 0 ? row[target] : 0;
    float sum = exp_row(row, vocab, vocab, top), z = top + logf(sum), scale = target >= 0 ? 1.0f / sum : 0.0f;
    for (long j = 0; j < vocab; j++) row[j] *= scale;
    if (target >= 0) row[target] -= 1.0f;
    *log_z = z;
    *loss = target >= 0 ? z - wanted : 0.0f;
}

/* Cross-entropy of logits = x w^T: x (rows, d), w (vocab, d), targets (rows,) negative where ignored; loss and log_z
 * (rows,), and the gradients dx (rows, d) and dw (vocab, d) of the sum of the losses where they are not NULL. The logits of
 * KC rows exist at a time. */
void linear_cross_entropy(const float *x, const float *w, const int64_t *targets, float *loss, float *log_z, float *dx,
                          float *dw, long rows, long vocab, long d, int threads) {
    const float **w_rows = malloc(sizeof(float *) * vocab);
    float *wt = room(panels_b(d, vocab)), *wn = dx ? room(panels_b(vocab, d)) : NULL;
    long step = round_up(vocab, NR) + PAD, part = round_up((KC + threads - 1) / threads, MR);
    float *logits = room(KC * step);
    row_pointers(w, d, vocab, w_rows);
    pack_bt(w_rows, 0, d, vocab, wt);
    if (dx) pack_b(w_rows, 0, vocab, d, wn, vocab);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *packed = room(panels_a(part, d > vocab ? d : vocab)), *to[KC];
        const float *from[KC];
        for (long r = 0; r < rows; r += KC) {
            long chunk = least(KC, rows - r);
#pragma omp for
            for (long i0 = 0; i0 < chunk; i0 += part) {
                long m = least(part, chunk - i0);
                row_pointers(x + (r + i0) * d, d, m, from);
                for (long i = 0; i < m; i++) to[i] = logits + (i0 + i) * step;
                pack_a(from, 0, m, d, packed);
                product(m, vocab, d, packed, d, wt, d, to, 0, 0);
                for (long i = 0; i < m; i++)
                    slope_row(to[i], targets[r + i0 + i], loss + r + i0 + i, log_z + r + i0 + i, vocab);
                if (!dx) continue;
                pack_a((const float **)to, 0, m, vocab, packed);
                for (long i = 0; i < m; i++) to[i] = dx + (r + i0 + i) * d;
                product(m, d, vocab, packed, vocab, wn, vocab, to, 0, 0);
            }
#pragma omp for schedule(static, 1)
            for (long t = 0; t < (dw ? threads : 0); t++)
                weight_product(logits, step, x + r * d, dw, chunk, share(vocab, t, threads), share(vocab, t + 1, threads), d,
                               r > 0);
        }
        free(packed);
    }
    free(w_rows);
    free(wt);
    free(wn);
    free(logits);
}
