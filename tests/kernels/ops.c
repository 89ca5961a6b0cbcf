/* Every op of the table on both CPU devices, at 1 and 2 threads, against double references over odd shapes. Exact ops are equal
 * bit for bit everywhere; all ops are equal when done again, and outside contractions on every instruction set too. */
#include <unistd.h>

#include "tests/kernels/ops.h"

#include "tests/kernels/ops_contraction.h"
#include "tests/kernels/ops_mp.h"
#include "tests/kernels/ops_norm.h"
#include "tests/kernels/ops_point.h"
#include "tests/kernels/ops_vision.h"

float *draw(struct bench *b, size_t n)
{
    struct rng r = {.seed = 99, .purpose = RNG_TEST, .step = b->drawn++};
    float *p = arena_alloc(&b->arena, n * sizeof *p);
    for (size_t i = 0; i < n; i++) p[i] = (float)(2 * rng_uniform(&r, 0, (uint32_t)i) - 1);
    return p;
}

float *zeros(struct bench *b, size_t n)
{
    return arena_alloc(&b->arena, n * sizeof(float));
}

double *doubles(struct bench *b, const float *x, size_t n)
{
    double *p = arena_alloc(&b->arena, n * sizeof *p);
    for (size_t i = 0; x && i < n; i++) p[i] = x[i];
    return p;
}

void emit1(struct bench *b, double got, double want)
{
    if (b->count == b->cap) {
        size_t cap = b->cap ? 2 * b->cap : 1024;
        b->got = mem_grow(b->got, b->cap * sizeof *b->got, cap * sizeof *b->got);
        b->want = mem_grow(b->want, b->cap * sizeof *b->want, cap * sizeof *b->want);
        b->cap = cap;
    }
    b->got[b->count] = got;
    b->want[b->count++] = want;
}

void emit(struct bench *b, const float *got, const double *want, size_t n)
{
    for (size_t i = 0; i < n; i++) emit1(b, got[i], want[i]);
}

double *differences(struct bench *b, void (*f)(const void *ctx, const double *x, double *out), const void *ctx,
                    const double *x, size_t nx, const double *dy, size_t ny)
{
    const double h = 1e-5;
    double *at = doubles(b, NULL, nx), *up = doubles(b, NULL, ny), *down = doubles(b, NULL, ny),
           *grad = doubles(b, NULL, nx);
    if (b->again) return grad;
    memcpy(at, x, nx * sizeof *at);
    for (size_t i = 0; i < nx; i++) {
        at[i] = x[i] + h;
        f(ctx, at, up);
        at[i] = x[i] - h;
        f(ctx, at, down);
        at[i] = x[i];
        for (size_t j = 0; j < ny; j++) grad[i] += dy[j] * (up[j] - down[j]) / (2 * h);
    }
    return grad;
}

/* ---- the driver ------------------------------------------------------------------------------------------------------------ */

static void bench_run(struct bench *b, const struct op_case *c, const char *device, int threads, bool again)
{
    *b = (struct bench){.again = again};
    assert_ok(kernels_find(device, &b->k));
    assert_ok(b->k->open(&b->d, device, threads));
    arena_init(&b->arena);
    c->run(b, c->dim);
    b->k->close(b->d);
    arena_done(&b->arena);
}

static void bench_done(struct bench *b)
{
    mem_free(b->got);
    mem_free(b->want);
}

static void name_case(char *buf, size_t n, const struct op_case *c, const char *device, int threads)
{
    size_t at = (size_t)snprintf(buf, n, "%s on %s, %d threads, shape", c->op, device, threads);
    for (int i = 0; i < 9; i++) at += (size_t)snprintf(buf + at, n - at, " %d", c->dim[i]);
}

/* The largest error over the largest reference value; NaN anywhere makes it infinite. */
static double error_of(const struct bench *b)
{
    double err = 0, top = 0;
    for (size_t i = 0; i < b->count; i++) {
        double e = fabs(b->got[i] - b->want[i]);
        if (!(e <= err)) err = isnan(e) ? INFINITY : e;
        if (fabs(b->want[i]) > top) top = fabs(b->want[i]);
    }
    return top > 0 ? err / top : err;
}

static bool same(const struct bench *a, const struct bench *b)
{
    return a->count == b->count && !memcmp(a->got, b->got, a->count * sizeof *a->got);
}

static void check_case(const struct op_case *c)
{
    static const char *const device[] = {"cpu", "cpu-portable"};
    struct bench first = {0};
    char name[200];
    for (int i = 0; i < 4; i++) {
        struct bench b, again;
        bench_run(&b, c, device[i / 2], 1 + i % 2, i > 0);
        bench_run(&again, c, device[i / 2], 1 + i % 2, true);
        name_case(name, sizeof name, c, device[i / 2], 1 + i % 2);
        if (b.count == 0) fail_msg("%s: nothing was compared", name);
        if (i > 0) {
            assert_int_equal(b.count, first.count);
            memcpy(b.want, first.want, b.count * sizeof *b.want);
        }
        double err = error_of(&b);
        if (!(err <= c->tol)) fail_msg("%s: error %.3g > %.3g", name, err, c->tol);
        if (!same(&b, &again)) fail_msg("%s: done twice, two results", name);
        if (i == 0) first = b;
        else {
            if (c->tol == 0 && !same(&first, &b)) fail_msg("%s: not the bits of cpu with one thread", name);
            bench_done(&b);
        }
        bench_done(&again);
    }
    bench_done(&first);
}

static void check_all(const struct op_case *c)
{
    for (; c->op; c++) check_case(c);
}

static void contractions(void **state)
{
    (void)state;
    check_all(contraction_cases);
}

static void norms(void **state)
{
    (void)state;
    check_all(norm_cases);
}

static void magnitude_preserving(void **state)
{
    (void)state;
    check_all(mp_cases);
}

static void vision(void **state)
{
    (void)state;
    check_all(vision_cases);
}

static void points(void **state)
{
    (void)state;
    check_all(point_cases);
}

/* The table names every op, so that a new one without a row is noticed. */
static void table_is_complete(void **state)
{
    (void)state;
    static const char *const ops[] = {
#define KOP(class, name, args) #name,
#include "kernels/ops.def"
#undef KOP
    };
    static const struct op_case *const tables[] = {contraction_cases, norm_cases, point_cases, vision_cases, mp_cases};
    for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
        bool found = false;
        for (size_t t = 0; t < ARRAY_LEN(tables); t++)
            for (const struct op_case *c = tables[t]; c->op; c++) found = found || strstr(c->op, ops[i]);
        if (!found) fail_msg("op %s has no row in the table", ops[i]);
    }
}

/* A wrong number and a NaN are seen by the comparison itself. */
static void comparison_can_fail(void **state)
{
    (void)state;
    double got[3] = {1, 2, 3}, want[3] = {1, 2, 3};
    struct bench b = {.got = got, .want = want, .count = 3};
    assert_true(error_of(&b) == 0);
    got[1] = 2.001;
    assert_true(error_of(&b) > 3e-4);
    got[1] = NAN;
    assert_true(!(error_of(&b) <= 1e30));
    got[1] = 2;
    got[0] = NAN; /* not hidden by a later, finite error */
    got[2] = 3.1;
    assert_true(!(error_of(&b) <= 1e30));
}

/* Prints a hash of all results outside contractions: run by the test below under other instruction sets. */
static int print_hash(void)
{
    struct sha256 h;
    uint8_t digest[SHA256_BYTES];
    char hex[SHA256_TEXT];
    sha256_init(&h);
    static const struct op_case *const tables[] = {norm_cases, point_cases, vision_cases, mp_cases};
    for (size_t t = 0; t < ARRAY_LEN(tables); t++)
        for (const struct op_case *c = tables[t]; c->op; c++) {
            struct bench b;
            bench_run(&b, c, "cpu", 1, true);
            sha256_add(&h, b.got, b.count * sizeof *b.got);
            bench_done(&b);
        }
    sha256_end(&h, digest);
    sha256_hex(digest, hex);
    puts(hex);
    return 0;
}

static void same_bits_on_every_instruction_set(void **state)
{
    (void)state;
    static const char *const isa[] = {"base", "avx2", "avx512"}; /* what the machine lacks falls back to what it has */
    char first[SHA256_TEXT] = "", self[4096], cmd[4400], line[SHA256_TEXT];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(n > 0);
    self[n] = 0;
    for (size_t i = 0; i < ARRAY_LEN(isa); i++) {
        snprintf(cmd, sizeof cmd, "ECT_ISA=%s '%s' --hash", isa[i], self);
        FILE *f = popen(cmd, "r");
        assert_non_null(f);
        assert_non_null(fgets(line, sizeof line, f));
        assert_int_equal(fscanf(f, "%*[\n]"), 0);
        assert_int_equal(pclose(f), 0);
        assert_int_equal(strlen(line), 64);
        if (i == 0) memcpy(first, line, sizeof first);
        assert_string_equal(first, line);
    }
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "--hash")) return print_hash();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comparison_can_fail),
        cmocka_unit_test(table_is_complete),
        cmocka_unit_test(points),
        cmocka_unit_test(norms),
        cmocka_unit_test(vision),
        cmocka_unit_test(magnitude_preserving),
        cmocka_unit_test(contractions),
        cmocka_unit_test(same_bits_on_every_instruction_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
