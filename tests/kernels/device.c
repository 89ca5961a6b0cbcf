/* Opening devices, and the plans' promises to their callers. */
#include "kernels/kernels.h"
#include "tests/test.h"

static void names(void **state)
{
    (void)state;
    const struct kernels *k = NULL;
    assert_ok(kernels_find("cpu", &k));
    assert_string_equal(k->name, "cpu");
    assert_ok(kernels_find("cpu-portable", &k));
    assert_string_equal(k->name, "cpu-portable");
    assert_err(ERR_DEVICE, kernels_find("tpu", &k));
    assert_has(err_text(), "tpu");
    assert_has(err_text(), "cpu");
    assert_err(ERR_DEVICE, kernels_find("cudax", &k));
}

static void cuda_says_what_is_missing(void **state)
{
    (void)state;
    const struct kernels *k = NULL;
    err_t e = kernels_find("cuda:0", &k);
    if (e == ERR_OK) skip(); /* the module is here */
    assert_int_equal(e, ERR_DEVICE);
    assert_has(err_text(), "ect_cuda.so");
    assert_has(err_text(), "--device cpu");
}

static void every_op_is_there(void **state)
{
    (void)state;
    static const char *const names_[] = {"cpu", "cpu-portable"};
    for (int i = 0; i < 2; i++) {
        const struct kernels *k = NULL;
        assert_ok(kernels_find(names_[i], &k));
#define KOP(class, name, args) assert_non_null(k->name);
#include "kernels/ops.def"
#undef KOP
        struct kdev *d;
        assert_ok(k->open(&d, names_[i], 2));
        assert_has(k->describe(d), "2 threads");
        assert_has(k->describe(d), names_[i]);
        float *p = k->alloc(d, 100 * sizeof *p), back[100] = {0};
        assert_int_equal((uintptr_t)p % 64, 0);
        for (int j = 0; j < 100; j++) assert_true(p[j] == 0);
        k->fill(d, p, 3, 100);
        k->download(d, back, p, sizeof back);
        k->sync(d);
        assert_true(back[0] == 3 && back[99] == 3);
        k->free(d, p);
        k->close(d);
    }
}

/* Kernels and plans allocate nothing once they are made. */
static void no_allocation_in_a_step(void **state)
{
    (void)state;
    const struct kernels *k = NULL;
    struct kdev *d;
    assert_ok(kernels_find("cpu", &k));
    assert_ok(k->open(&d, "cpu", 2));
    struct conv_desc desc = {.n = 2,
                             .h = 8,
                             .w = 8,
                             .c = 128,
                             .k = 128,
                             .r = 3,
                             .s = 3,
                             .stride = 1,
                             .pad = 1,
                             .bwd_data = true,
                             .bwd_weight = true};
    struct conv *conv;
    assert_ok(k->conv_new(d, &desc, &conv));
    size_t x = 2 * 64 * 128, w = 128 * 128 * 9;
    float *in = k->alloc(d, x * 4), *out = k->alloc(d, x * 4), *weight = k->alloc(d, w * 4), *dw = k->alloc(d, w * 4),
          *b = k->alloc(d, 512);
    void *packed = k->alloc(d, k->conv_packed_bytes(conv)), *packed_bwd = k->alloc(d, k->conv_packed_bwd_bytes(conv));
    void *ws = k->alloc(d, k->conv_workspace_bytes(conv));
    struct kstream s = {.seed = 1, .purpose = 1};
    uint64_t before = mem_count();
    k->normal(d, in, 2, 64 * 128, &s);
    k->conv_pack(conv, weight, packed);
    k->conv_pack_bwd(conv, weight, packed_bwd);
    k->conv_fwd(conv, in, packed, b, out, ws);
    k->conv_bwd_data(conv, out, packed_bwd, in, ws);
    k->conv_bwd_weight_acc(conv, in, out, dw, b, ws);
    struct gemm_desc g = {.m = 128, .n = 128, .k = 128, .lda = 128, .ldb = 128, .ldc = 128, .batch = 1, .alpha = 1};
    k->gemm(d, &g, in, weight, out);
    assert_int_equal(mem_count(), before);
    k->conv_free(conv);
    void *all[] = {in, out, weight, dw, b, packed, packed_bwd, ws};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) k->free(d, all[i]);
    k->close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(cuda_says_what_is_missing),
        cmocka_unit_test(every_op_is_there),
        cmocka_unit_test(no_allocation_in_a_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
