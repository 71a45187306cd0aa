/* moelab's CPU kernels, fp32. Plain C with GCC's vector extension: compiled once per machine by `native/build.py`.
 *
 * What a small model spends its time on beside products are the many short passes between them; each function is one such
 * chain of passes done in one go, block by block, while the block is in cache. Every function has a reference in PyTorch
 * beside its caller, and tests hold the two together. All pointers are to contiguous memory unless a stride is given.
 */
#include "products.c"
/* in this order */
#include "rows.c"
#include "attention.c"
#include "linear.c"
#include "experts.c"
#include "decode.c"

/* For the test and the benchmark of the product itself: C (m, n) = A (m, k) B (k, n). */
void plain_product(const float *a, const float *b, float *c, long m, long n, long k) {
    const float **a_rows = malloc(sizeof(float *) * m), **b_rows = malloc(sizeof(float *) * k);
    float *left = room(panels_a(m, k)), *right = room(panels_b(k, n)), **c_rows = malloc(sizeof(float *) * m);
    row_pointers(a, k, m, a_rows);
    row_pointers(b, n, k, b_rows);
    for (long i = 0; i < m; i++) c_rows[i] = c + i * n;
    pack_a(a_rows, 0, m, k, left);
    pack_b(b_rows, 0, k, n, right, k);
    product(m, n, k, left, k, right, k, c_rows, 0, 0);
    free(a_rows);
    free(b_rows);
    free(c_rows);
    free(left);
    free(right);
}

/* The same of a decode step's product: y (m, n) = x (m, k) w^T, w (n, k). */
void thin_product(const float *x, const float *w, float *y, long m, long n, long k, int threads) {
    const float *x_rows[m];
    float *y_rows[m];
    for (long i = 0; i < m; i++) x_rows[i] = x + i * k, y_rows[i] = y + i * n;
    thin(m, n, k, x_rows, w, y_rows, 0, threads);
}
