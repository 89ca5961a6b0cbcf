/* Label policies: frequencies, identity, and that the label of a sample depends on (seed block, sample) alone. */
#include "tests/test.h"

#include "core/labels.h"

enum { N = 6000, CLASSES = 4 };
static int32_t of_images[8] = {0, 0, 0, 0, 1, 1, 2, 3}; /* 1/2, 1/4, 1/8, 1/8 */
static const struct dataset data = {
    .name = "toy", .n = 8, .h = 1, .w = 1, .c = 1, .nclasses = CLASSES, .labels = of_images};
static float rows[N * CLASSES], few[3 * CLASSES];
static uint32_t numbers[N];

static struct label_policy policy(const char *text)
{
    struct label_policy p;
    assert_ok(labels_parse(text, &p));
    assert_ok(labels_check(&p, &data));
    return p;
}

static void draw(const char *text, int count[CLASSES])
{
    struct label_policy p = policy(text);
    for (uint32_t i = 0; i < N; i++) numbers[i] = i;
    for (int i = 0; i < N * CLASSES; i++) rows[i] = 7; /* what lay there before does not matter */
    labels_draw(&p, &data, 21, numbers, N, rows);
    memset(count, 0, CLASSES * sizeof *count);
    for (int i = 0; i < N; i++) {
        int ones = 0;
        for (int j = 0; j < CLASSES; j++) {
            assert_true(rows[i * CLASSES + j] == 0 || rows[i * CLASSES + j] == 1);
            ones += rows[i * CLASSES + j] == 1;
            count[j] += rows[i * CLASSES + j] == 1;
        }
        assert_int_equal(ones, strcmp(text, "none") != 0);
    }
}

static void frequencies(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double share[CLASSES];
    } cases[] = {{"data", {.5, .25, .125, .125}}, {"uniform", {.25, .25, .25, .25}}};
    int count[CLASSES];
    for (int c = 0; c < 2; c++) {
        draw(cases[c].text, count);
        for (int j = 0; j < CLASSES; j++) {
            double p = cases[c].share[j];
            assert_near(count[j], N * p, 4 * sqrt(N * p * (1 - p)));
            assert_true(count[j] != N * p); /* independent draws do not come out even */
        }
    }
    draw("balanced", count);
    for (int j = 0; j < CLASSES; j++) assert_int_equal(count[j], N / CLASSES);
    for (int i = 0; i < N; i++) assert_true(rows[i * CLASSES + i % CLASSES] == 1);
    draw("class:2", count);
    assert_int_equal(count[2], N);
    draw("none", count);
}

static void by_sample(void **state)
{
    (void)state;
    static const char *const all[] = {"data", "uniform", "balanced", "class:1", "none"};
    static const uint32_t some[3] = {5999, 3, 1234};
    int count[CLASSES], differ = 0;
    for (size_t c = 0; c < ARRAY_LEN(all); c++) {
        struct label_policy p = policy(all[c]);
        draw(all[c], count);
        labels_draw(&p, &data, 21, some, 3, few);
        for (int i = 0; i < 3; i++)
            assert_memory_equal(few + (ptrdiff_t)i * CLASSES, rows + (ptrdiff_t)some[i] * CLASSES,
                                CLASSES * sizeof *few);
        labels_draw(&p, &data, 22, numbers, 3, few);
        for (int seed = 22; seed < 40; seed++) {
            labels_draw(&p, &data, (uint64_t)seed, numbers, 3, few);
            differ += memcmp(few, rows, sizeof few) != 0;
        }
        if (c == 1) assert_true(differ > 20); /* data and uniform are drawn, the others are fixed */
    }
    assert_true(differ <= 36);
}

static void texts(void **state)
{
    (void)state;
    static const char *const wrong[][2] = {{"ballanced", "did you mean 'balanced'?"},
                                           {"class:-1", "K from 0"},
                                           {"class:", "K from 0"},
                                           {"class:1.5", "K from 0"},
                                           {"", "data, uniform"},
                                           {"7", "class:K"}};
    static const char *const right[][2] = {{"data", "iid from the data set"},
                                           {"uniform", "uniform"},
                                           {"balanced", "balanced"},
                                           {"class:3", "class:3"},
                                           {"none", "none"}};
    struct label_policy p = {.kind = LABELS_DATA};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        assert_err(ERR_USAGE, labels_parse(wrong[i][0], &p));
        assert_has(err_text(), wrong[i][1]);
    }
    for (size_t i = 0; i < ARRAY_LEN(right); i++) {
        struct text t = {0};
        p = policy(right[i][0]);
        labels_text(&p, &t);
        assert_string_equal(text_str(&t), right[i][1]);
        text_done(&t);
    }
    assert_ok(labels_parse("class:4", &p));
    assert_err(ERR_USAGE, labels_check(&p, &data));
    assert_has(err_text(), "0..3");
    struct dataset bare = data;
    bare.labels = NULL, bare.nclasses = 0;
    p = (struct label_policy){.kind = LABELS_UNIFORM};
    assert_err(ERR_USAGE, labels_check(&p, &bare));
    p.kind = LABELS_NONE;
    assert_ok(labels_check(&p, &bare));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(frequencies), cmocka_unit_test(by_sample),
                                       cmocka_unit_test(texts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
