/* What the tests of scripts share: a script from text, with the data set facts that scripts ask for. */
#ifndef TESTS_LUA_H
#define TESTS_LUA_H

#include "tests/test.h"

#include "lua/script.h"

static inline err_t test_data_info(void *ctx, const char *name, int *d, double *rms)
{
    (void)ctx;
    static const struct {
        const char *name;
        int d;
    } known[] = {{"digits", 64}, {"cifar10", 3072}, {"swissroll", 2}};
    size_t i = 0;
    while (i < ARRAY_LEN(known) && strcmp(name, known[i].name)) i++;
    if (i == ARRAY_LEN(known)) return fail(ERR_NO_DATA, "no data set %s", name);
    *d = known[i].d;
    *rms = 0.75;
    return ERR_OK;
}
/* Executed: 4 FLOPs an image and channel, total twice that: enough to be told apart. */
static inline err_t test_predict(void *ctx, const struct spec *s, double *total, double *executed, double *params)
{
    (void)ctx;
    *executed = 4.0 * (double)(s->iters * s->batch * s->net_width);
    *total = 2 * *executed;
    *params = (double)s->net_width;
    return ERR_OK;
}
static const struct script_host test_host = {
    .predict = test_predict, .data_info = test_data_info, .max_steps = 100000000, .max_bytes = 256 << 20};

static inline err_t open_text(struct script **s, const char *text)
{
    return script_open(s, "dir/test.lua", text, NULL, 0, &test_host);
}
/* The script must be refused as bad, with this in the message. */
static inline void refused(const char *text, const char *says)
{
    struct script *s;
    err_t e = open_text(&s, text);
    if (!e) {
        script_close(s);
        fail_msg("accepted, but should say \"%s\":\n%s", says, text);
    }
    assert_has(err_text(), says);
    assert_int_equal(e, ERR_USAGE);
    assert_null(s);
}
static inline struct script *accepted(const char *text)
{
    struct script *s;
    assert_ok(open_text(&s, text));
    return s;
}

#endif
