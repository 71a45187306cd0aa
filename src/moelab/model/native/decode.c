/* One decode step of the whole model: one new token per sequence, keys and values in caches.
 *
 * With a handful of rows a product is a matter of reading the weights once, so nothing is packed: each row of a weight
 * matrix meets up to four rows of x while it is in registers, and of the experts only those that were chosen are read.
 */

/* The sums of eight vectors. */
INLINE v8 eight_sums(const vf *v) {
    v8 r[8], sum = {0};
    for (int i = 0; i < 8; i++) {
        const v8 *half = (const v8 *)(v + i);
        r[i] = half[0];
        if (VL == 16) r[i] += half[1];
    }
    transpose(r);
    for (int i = 0; i < 8; i++) sum += r[i];
    return sum;
}

/* `wide` rows of w (n, k) from j on against `m` rows of x, wide * m <= 8: y[i][j + q] = or += x[i] . w[j + q]. Rows of w
 * that would lie beyond `to` are not there. */
INLINE void thin_block(int m, int wide, long j, long to, long k, const float *const *x, const float *w, float *const *y,
                       int add) {
    const float *row[8];
    vf acc[8];
    float tail[8] = {0};
    for (int i = 0; i < 8; i++) acc[i] = (vf){0};
    for (int q = 0; q < wide; q++) row[q] = w + (j + q < to ? j + q : to - 1) * k;
    long p = 0;
    for (; p + VL <= k; p += VL)
        for (int q = 0; q < wide; q++) {
            if (p % 16 == 0) __builtin_prefetch(row[q] + wide * k + p); /* the block after this one */
            vf weights = load(row[q] + p);
            for (int i = 0; i < m; i++) acc[i * wide + q] += weights * load(x[i] + p);
        }
    for (; p < k; p++)
        for (int q = 0; q < wide; q++)
            for (int i = 0; i < m; i++) tail[i * wide + q] += row[q][p] * x[i][p];
    v8 sums = eight_sums(acc);
    for (int i = 0; i < m; i++)
        for (int q = 0; q < wide && j + q < to; q++) {
            float value = sums[i * wide + q] + tail[i * wide + q];
            y[i][j + q] = add ? y[i][j + q] + value : value;
        }
}

/* y[i] (n,) = or += w x[i] for m rows, w (n, k). A sum does not depend on the other rows nor on the threads. */
static void thin(long m, long n, long k, const float *const *x, const float *w, float *const *y, int add, int threads) {
    if (m * n * k < 1 << 17) threads = 1;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (long from = 0; from < n; from += 32) {
        long to = least(from + 32, n), i = 0;
        for (; i + 4 <= m; i += 4)
            for (long j = from; j < to; j += 2) thin_block(4, 2, j, to, k, x + i, w, y + i, add);
        for (; i + 2 <= m; i += 2)
            for (long j = from; j < to; j += 4) thin_block(2, 4, j, to, k, x + i, w, y + i, add);
        for (; i < m; i++)
            for (long j = from; j < to; j += 8) thin_block(1, 8, j, to, k, x + i, w, y + i, add);
    }
}

/* The pointers of one layer, in the order of `LAYER` in decode.py; those that a layer does not have are NULL. */
typedef struct {
    float *input_norm, *q, *k, *v, *o, *q_norm, *k_norm, *post_norm, *first, *down, *router, *bias, *shared_first,
        *shared_down, *keys, *values;
} Layer;

/* In the order of `SIZES` in decode.py. qk_norm: 0 none, 1 each head, 2 the whole width. */
typedef struct {
    int64_t n_layers, batch, d, vocab, heads, kv, a, capacity, d_ff, n_experts, top_k, d_expert, d_shared, qk_norm, sigmoid,
        normalize_scores, normalize_gates;
} Sizes;

/* y = x / rms(x) * w for one row of n; y may be x. */
static void norm_row(const float *x, const float *w, float *y, long n, float eps) {
    float sum = 0;
    for (long i = 0; i < n; i++) sum += x[i] * x[i];
    float scale = 1.0f / sqrtf(sum / n + eps);
    for (long i = 0; i < n; i++) y[i] = x[i] * scale * w[i];
}

static void rotate_row(float *x, long heads, long a, const float *cosine, const float *sine) {
    for (long h = 0; h < heads; h++, x += a)
        for (long i = 0; i < a / 2; i++) {
            float u = x[i], v = x[a / 2 + i];
            x[i] = u * cosine[i] - v * sine[i];
            x[a / 2 + i] = v * cosine[i] + u * sine[i];
        }
}

static void norm_heads(float *x, const float *w, long heads, long a, int whole, float eps) {
    if (whole)
        norm_row(x, w, x, heads * a, eps);
    else
        for (long h = 0; h < heads; h++) norm_row(x + h * a, w, x + h * a, a, eps);
}

/* Attention of one query row over the cached places first..position of its sequence. */
static void attend(const float *q, const float *keys, const float *values, float *out, float *scores, const Sizes *z,
                   long first, long position) {
    long a = z->a, group = z->heads / z->kv, n = position + 1 - first;
    for (long h = 0; h < z->heads; h++) {
        const float *k = keys + (h / group * z->capacity + first) * a, *v = values + (h / group * z->capacity + first) * a;
        const float *query = q + h * a;
        float *o = out + h * a;
        thin(1, n, a, &query, k, &scores, 0, 1);
        for (long t = 0; t < n; t++) scores[t] /= sqrtf(a);
        float top = max_row(scores, n), sum = exp_row(scores, n, n, top);
        for (long i = 0; i < a; i++) o[i] = 0;
        for (long t = 0; t < n; t++)
            for (long i = 0; i < a; i++) o[i] += scores[t] / sum * v[t * a + i];
    }
}

/* TINY of router.py: scores that vanish give gates of 0, not NaN. */
static const float tiny = 1e-20f;

/* One token's choice: the top_k experts by score (plus bias, for the choice alone) and their gates. Spoils scores. */
static void choose_experts(float *scores, const float *bias, int64_t *chosen, float *gates, const Sizes *z, float scaling) {
    long n = z->n_experts;
    if (z->sigmoid)
        for (long e = 0; e < n; e++) scores[e] = 1.0f / (1.0f + expf(-scores[e]));
    else {
        float top = max_row(scores, n), total = exp_row(scores, n, n, top);
        for (long e = 0; e < n; e++) scores[e] /= total;
    }
    float total = 0, sum = 0;
    for (long e = 0; e < n; e++) total += scores[e];
    if (z->normalize_scores)
        for (long e = 0; e < n; e++) scores[e] /= total + tiny;
    for (long i = 0; i < z->top_k; i++) {
        long best = -1;
        float most = 0;
        for (long e = 0; e < n; e++) {
            float value = scores[e] + (bias ? bias[e] : 0);
            int taken = 0;
            for (long c = 0; c < i; c++) taken |= chosen[c] == e;
            if (!taken && (best < 0 || value > most)) best = e, most = value;
        }
        chosen[i] = best;
        sum += gates[i] = scores[best];
    }
    for (long i = 0; i < z->top_k; i++) gates[i] = (z->normalize_gates ? gates[i] / (sum + tiny) : gates[i]) * scaling;
}

/* y[i] += gate[i] down(swiglu(first x[i])) for m rows; h (m, 2f) and act (m, f) are scratch. */
static void few_rows(long m, const float *const *x, const float *first, const float *down, const float *gates,
                     float *const *y, float *h, float *act, long d, long f, int threads) {
    float *h_rows[m], *act_rows[m];
    for (long i = 0; i < m; i++) h_rows[i] = h + i * 2 * f, act_rows[i] = act + i * f;
    thin(m, 2 * f, d, x, first, h_rows, 0, threads);
    for (long i = 0; i < m; i++) swiglu_row(h_rows[i], gates ? gates[i] : 1.0f, act_rows[i], NULL, NULL, f);
    thin(m, d, f, (const float **)act_rows, down, y, 1, threads);
}

/* Experts on a few tokens: x and y hold pointers to their rows; y is added to. Experts that nobody chose are not read. */
static void few_experts(long tokens, const float *const *x, const float *first, const float *down, const int64_t *chosen,
                        const float *gates, float *const *y, float *h, float *act, long top_k, long n_experts, long d,
                        long f, int threads) {
    long n_rows = tokens * top_k;
    int64_t order[n_rows], offsets[n_experts + 1];
    const float *x_rows[tokens];
    float *y_rows[tokens], row_gates[tokens];
    sort_by_expert(chosen, order, offsets, n_rows, n_experts);
    for (long e = 0; e < n_experts; e++) {
        long m = offsets[e + 1] - offsets[e];
        for (long i = 0; i < m; i++) {
            long place = order[offsets[e] + i];
            x_rows[i] = x[place / top_k], y_rows[i] = y[place / top_k], row_gates[i] = gates[place];
        }
        if (m) few_rows(m, x_rows, first + e * 2 * f * d, down + e * f * d, row_gates, y_rows, h, act, d, f, threads);
    }
}

/* logits (batch, vocab) of the next token. tokens (batch,) stand at `position` of the caches (batch, kv, capacity, a), whose
 * places before start (batch,) are padding; cosine and sine (a/2,) are the position's. `scratch` holds the floats that
 * `scratch_floats` in decode.py counts. */
void decode(const Layer *layers, const Sizes *z, const float *embedding, const float *norm, const float *head,
            const int64_t *tokens, const int64_t *start, const float *cosine, const float *sine, float *scratch,
            float *logits, long position, float eps, float scaling, int threads) {
    long b = z->batch, d = z->d, q_width = z->heads * z->a, kv_width = z->kv * z->a, block = z->capacity * z->a;
    long widest = z->d_ff > z->d_expert ? z->d_ff : z->d_expert;
    if (z->d_shared > widest) widest = z->d_shared;
    float *x = scratch, *n = x + b * d, *q = n + b * d, *k = q + b * q_width, *v = k + b * kv_width;
    float *y = v + b * kv_width, *scores = y + b * q_width, *h = scores + b * (z->n_experts + z->capacity);
    float *act = h + b * 2 * widest;
    const float *n_rows[b], *y_rows[b];
    float *x_rows[b], *q_rows[b], *k_rows[b], *v_rows[b], *score_rows[b], *logit_rows[b];
    float gates[b * z->top_k + 1];
    int64_t chosen[b * z->top_k + 1];
    for (long i = 0; i < b; i++) {
        memcpy(x + i * d, embedding + tokens[i] * d, d * sizeof(float));
        x_rows[i] = x + i * d, n_rows[i] = n + i * d, q_rows[i] = q + i * q_width, k_rows[i] = k + i * kv_width;
        v_rows[i] = v + i * kv_width, y_rows[i] = y + i * q_width, logit_rows[i] = logits + i * z->vocab;
        score_rows[i] = scores + i * (z->n_experts + z->capacity);
    }
    for (const Layer *l = layers; l < layers + z->n_layers; l++) {
        for (long i = 0; i < b; i++) norm_row(x_rows[i], l->input_norm, n + i * d, d, eps);
        thin(b, q_width, d, n_rows, l->q, q_rows, 0, threads);
        thin(b, kv_width, d, n_rows, l->k, k_rows, 0, threads);
        thin(b, kv_width, d, n_rows, l->v, v_rows, 0, threads);
        for (long i = 0; i < b; i++) {
            if (z->qk_norm) {
                norm_heads(q_rows[i], l->q_norm, z->heads, z->a, z->qk_norm == 2, eps);
                norm_heads(k_rows[i], l->k_norm, z->kv, z->a, z->qk_norm == 2, eps);
            }
            rotate_row(q_rows[i], z->heads, z->a, cosine, sine);
            rotate_row(k_rows[i], z->kv, z->a, cosine, sine);
            float *keys = l->keys + i * z->kv * block, *values = l->values + i * z->kv * block;
            for (long g = 0; g < z->kv; g++) {
                memcpy(keys + g * block + position * z->a, k_rows[i] + g * z->a, z->a * sizeof(float));
                memcpy(values + g * block + position * z->a, v_rows[i] + g * z->a, z->a * sizeof(float));
            }
        }
#pragma omp parallel for num_threads(threads) if (threads > 1 && b > 1)
        for (long i = 0; i < b; i++)
            attend(q_rows[i], l->keys + i * z->kv * block, l->values + i * z->kv * block, y + i * q_width, score_rows[i], z,
                   start[i], position);
        thin(b, d, q_width, y_rows, l->o, x_rows, 1, threads);
        for (long i = 0; i < b; i++) norm_row(x_rows[i], l->post_norm, n + i * d, d, eps);
        if (!l->router) {
            few_rows(b, n_rows, l->first, l->down, NULL, x_rows, h, act, d, z->d_ff, threads);
            continue;
        }
        thin(b, z->n_experts, d, n_rows, l->router, score_rows, 0, threads);
        for (long i = 0; i < b; i++)
            choose_experts(score_rows[i], l->bias, chosen + i * z->top_k, gates + i * z->top_k, z, scaling);
        few_experts(b, n_rows, l->first, l->down, chosen, gates, x_rows, h, act, z->top_k, z->n_experts, d, z->d_expert,
                    threads);
        if (l->shared_first)
            few_rows(b, n_rows, l->shared_first, l->shared_down, NULL, x_rows, h, act, d, z->d_shared, threads);
    }
    for (long i = 0; i < b; i++) norm_row(x_rows[i], norm, n + i * d, d, eps);
    thin(b, z->vocab, d, n_rows, head, logit_rows, 0, threads);
}
