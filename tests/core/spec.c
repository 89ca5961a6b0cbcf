#include "tests/test.h"

#include "core/spec.h"

static struct spec s;

static int setup(void **state)
{
    (void)state;
    spec_defaults(&s);
    return 0;
}

static void assert_text(const char *key, const char *want)
{
    struct text t = {0};
    spec_get(&s, spec_find(key), &t);
    assert_string_equal(text_str(&t), want);
    text_done(&t);
}

static void defaults(void **state)
{
    (void)state;
    for (int i = 0; i < spec_nfields; i++) assert_true(spec_is_default(&s, &spec_fields[i]));
    assert_int_equal(s.net_width, 128);
    assert_int_equal(s.net_mult.n, 3);
    assert_string_equal(s.mapping.id, "sigmoid(b=1,k=8,q=2)@1");
    assert_true(s.share_noise);
    struct text t = {0};
    spec_canon(&s, SPEC_TRAIN, &t);
    assert_string_equal(text_str(&t), "numerics=1\n"); /* defaults vanish */
    text_done(&t);
}

static void one_value_one_text(void **state)
{
    (void)state;
    char hash[3][SHA256_TEXT];
    const char *spellings[] = {"1", "1.0", "1e0"};
    const char *keys[] = {"c", "iters", "lr", "dropout"};
    for (size_t k = 0; k < ARRAY_LEN(keys); k++) {
        for (int i = 0; i < 3; i++) {
            spec_defaults(&s);
            assert_ok(spec_set(&s, keys[k], spellings[i]));
            assert_text(keys[k], "1");
            spec_hash(&s, hash[i]);
        }
        assert_string_equal(hash[0], hash[1]);
        assert_string_equal(hash[0], hash[2]);
    }
    assert_ok(spec_set(&s, "iters", "1e6"));
    assert_int_equal(s.iters, 1000000);
    assert_ok(spec_set(&s, "c", "-0"));
    assert_text("c", "0");
    assert_ok(spec_set(&s, "eval.mid_t", "[2.50, 4e-1]"));
    assert_text("eval.mid_t", "2.5,0.4");
}

static void lists(void **state)
{
    (void)state;
    const char *same[] = {"1,2", "[1,2]", "{1, 2}", "  [ 1 , 2.0 ] "};
    for (size_t i = 0; i < ARRAY_LEN(same); i++) {
        assert_ok(spec_set(&s, "net.mult", same[i]));
        assert_text("net.mult", "1,2");
    }
    assert_ok(spec_set(&s, "net.attn", "[]"));
    assert_int_equal(s.net_attn.n, 0);
    assert_ok(spec_set(&s, "eval.at", "25%, 100%"));
    assert_string_equal(s.eval_at.v[1], "100%");
    assert_err(ERR_USAGE, spec_set(&s, "net.mult", "1,,2"));
    assert_err(ERR_USAGE, spec_set(&s, "net.mult", "1,2,1,2,1,2,1,2,1,2,1,2,1,2,1,2,1"));
    assert_text("net.mult", "1,2"); /* a failed set changes nothing */
}

static void refused(void **state)
{
    (void)state;
    static const struct {
        const char *key, *value, *says;
    } bad[] = {
        {"net.widht", "8", "net.width"},
        {"zzzzzzzzzzzz", "8", "unknown setting"},
        {"net.width", "abc", "whole number"},
        {"net.width", "8.5", "whole number"},
        {"net.width", "1", "4..4096"},
        {"net.mult", "1,99", "1..16"},
        {"c", "x", "a number"},
        {"c", "nan", "finite"},
        {"c", "inf", "finite"},
        {"c", "-1", "0..1e6"},
        {"metric", "l3", "pseudo-huber|l2|l1"},
        {"metric", "pseudo", "pseudo-huber|l2|l1"},
        {"metric", "", "pseudo-huber|l2|l1"},
        {"net.augment", "4", "0|9"},
        {"xflip", "maybe", "true or false"},
        {"lr", "inf", "finite"},
        {"init", "a\nb", "control"},
        {"mapping", "f\ng", "control"},
    };
    char before[SHA256_TEXT], after[SHA256_TEXT];
    spec_hash(&s, before);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_err(ERR_USAGE, spec_set(&s, bad[i].key, bad[i].value));
        assert_has(err_text(), bad[i].says);
    }
    spec_hash(&s, after);
    assert_string_equal(before, after);
    char word[SPEC_WORD + 1], id[1025];
    memset(word, 'w', SPEC_WORD);
    word[SPEC_WORD] = 0;
    memset(id, 'f', 1024);
    id[1024] = 0;
    assert_err(ERR_USAGE, spec_set(&s, "init", word));
    assert_err(ERR_USAGE, spec_set(&s, "ema", id));
    id[1023] = 0;
    assert_ok(spec_set(&s, "ema", id));
    assert_int_equal(strlen(s.ema.id), 1023);
}

/* The first word of "a|b|c" that is not the default, or NULL. */
static const char *other_word(const struct spec_field *f)
{
    static char word[64];
    for (const char *at = f->range; *at;) {
        size_t len = strcspn(at, "|");
        snprintf(word, sizeof word, "%.*s", (int)len, at);
        if (strcmp(word, f->def) != 0) return word;
        at += len + (at[len] == '|');
    }
    return NULL;
}

/* A value that differs from the default, for every field; NULL: a setting with one value only so far. */
static const char *other_value(const struct spec_field *f)
{
    static char number[32];
    if (strchr(f->range, '|') || (f->range[0] && !strstr(f->range, ".."))) return other_word(f);
    if (!strcmp(f->key, "eval.at")) return "12.5%,50%";
    switch (f->type) {
    case SPEC_INT: {
        const char *hi = strstr(f->range, "..");
        long long most = hi ? (long long)atof(hi + 2) : 37;
        snprintf(number, sizeof number, "%lld", most < 37 ? most - (most == atoll(f->def)) : 37);
        return number;
    }
    case SPEC_REAL: return "0.30000000000000004";
    case SPEC_BOOL: return strcmp(f->def, "true") ? "true" : "false";
    case SPEC_INTS: return "5,7,11";
    case SPEC_REALS: return "1.5,0.1";
    case SPEC_FN: return "mine(a=1,b={2,3})@4";
    case SPEC_TEXT:
    case SPEC_TEXTS: return "other";
    }
    return NULL;
}

static void round_trip(void **state)
{
    (void)state;
    char base[SHA256_TEXT], hash[SHA256_TEXT];
    spec_hash(&s, base);
    for (int i = 0; i < spec_nfields; i++) {
        const struct spec_field *f = &spec_fields[i];
        const char *value = other_value(f);
        if (!value) continue; /* a setting with one value only so far */
        spec_defaults(&s);
        assert_ok(spec_set(&s, f->key, value));
        assert_false(spec_is_default(&s, f));
        assert_text(f->key, value);
        spec_hash(&s, hash);
        if (f->class == SPEC_TRAIN) assert_string_not_equal(base, hash);
        else assert_string_equal(base, hash); /* eval and exec settings are not part of a run's identity */
        struct text canon = {0}, again = {0};
        spec_canon(&s, f->class, &canon);
        assert_has(text_str(&canon), value);
        assert_ok(spec_parse(&s, text_str(&canon)));
        assert_text(f->key, value);
        spec_canon(&s, f->class, &again);
        assert_string_equal(text_str(&canon), text_str(&again));
        text_done(&canon);
        text_done(&again);
    }
}

static void order_does_not_matter(void **state)
{
    (void)state;
    char a[SHA256_TEXT], b[SHA256_TEXT];
    assert_ok(spec_set(&s, "c", "0.03"));
    assert_ok(spec_set(&s, "batch", "64"));
    assert_ok(spec_set(&s, "mapping", "const(q=2)@1"));
    struct text t = {0};
    spec_canon(&s, SPEC_TRAIN, &t);
    assert_string_equal(text_str(&t), "numerics=1\nbatch=64\nc=0.03\nmapping=const(q=2)@1\n");
    text_done(&t);
    spec_hash(&s, a);
    spec_defaults(&s);
    assert_ok(spec_set(&s, "mapping", "const(q=2)@1"));
    assert_ok(spec_set(&s, "batch", "32"));
    assert_ok(spec_set(&s, "c", "3e-2"));
    assert_ok(spec_set(&s, "batch", "64"));
    spec_hash(&s, b);
    assert_string_equal(a, b);
}

static void parse_refuses(void **state)
{
    (void)state;
    assert_err(ERR_NEWER, spec_parse(&s, "numerics=999\n"));
    assert_err(ERR_FORMAT, spec_parse(&s, "numerics=1\nno equals sign\n"));
    assert_err(ERR_USAGE, spec_parse(&s, "numerics=1\nbatsch=3\n"));
    assert_has(err_text(), "batch");
    assert_ok(spec_parse(&s, ""));
}

static void help(void **state)
{
    (void)state;
    struct text t = {0};
    spec_help(&t);
    for (int i = 0; i < spec_nfields; i++) {
        assert_has(text_str(&t), spec_fields[i].key);
        assert_has(text_str(&t), spec_fields[i].help);
    }
    text_done(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(defaults, setup),      cmocka_unit_test_setup(one_value_one_text, setup),
        cmocka_unit_test_setup(lists, setup),         cmocka_unit_test_setup(refused, setup),
        cmocka_unit_test_setup(round_trip, setup),    cmocka_unit_test_setup(order_does_not_matter, setup),
        cmocka_unit_test_setup(parse_refuses, setup), cmocka_unit_test_setup(help, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
