/* The inert machine: what it builds from each opcode, what it refuses and with which words, and that memory follows the bytes read. */
#include "tests/test.h"

#include "core/io/pickle.h"

/* A pickle from a literal, which may hold NULs. */
#define PICKLE(s) s, sizeof(s) - 1

static err_t read_it(struct pickle *p, const char *data, size_t n, struct pv **root)
{
    size_t used = 0;
    pickle_init(p, n);
    err_t err = pickle_read(p, data, n, root, &used);
    if (!err) assert_int_equal(used, n);
    return err;
}

static void is_json(const char *data, size_t n, const char *want)
{
    struct pickle p;
    struct pv *root;
    assert_ok(read_it(&p, data, n, &root));
    char *json = pv_json(root, 4096);
    assert_non_null(json);
    assert_string_equal(json, want);
    mem_free(json);
    pickle_done(&p);
}

static void says(const char *data, size_t n, const char *words)
{
    struct pickle p;
    struct pv *root;
    assert_err(ERR_FORMAT, read_it(&p, data, n, &root));
    assert_has(err_text(), words);
    pickle_done(&p);
}

static void values(void **state)
{
    (void)state;
    is_json(PICKLE("N."), "null");
    is_json(PICKLE("\x88\x89\x86."), "[true, false]");
    is_json(PICKLE("I01\n."), "true");
    is_json(PICKLE("I-12\n."), "-12");
    is_json(PICKLE("L123456789012345678901234567890L\n."), "\"123456789012345678901234567890\"");
    is_json(PICKLE("F1.5\n."), "1.5");
    is_json(PICKLE("G\x3f\xf0\0\0\0\0\0\0."), "1");
    is_json(PICKLE("G\x7f\xf0\0\0\0\0\0\0."), "\"inf\"");
    is_json(PICKLE("J\xff\xff\xff\xff."), "-1");
    is_json(PICKLE("K\xff."), "255");
    is_json(PICKLE("M\xff\xff."), "65535");
    is_json(PICKLE("\x8a\0."), "0");
    is_json(PICKLE("\x8a\1\x80."), "-128");
    is_json(PICKLE("\x8a\x09\0\0\0\0\0\0\0\0\1."), "\"18446744073709551616\"");
    is_json(PICKLE("\x8a\x09\0\0\0\0\0\0\0\0\xff."), "\"-18446744073709551616\"");
    is_json(PICKLE("\x8b\2\0\0\0\0\1."), "256");
    is_json(PICKLE("S'a\\n\\x41'\n."), "\"a\\u000aA\"");
    is_json(PICKLE("Vna\xefve \\u2713 \\U0001f600\n."), "\"na\xc3\xafve \xe2\x9c\x93 \xf0\x9f\x98\x80\"");
    is_json(PICKLE("U\3a\"b."), "\"a\\\"b\"");
    is_json(PICKLE("X\2\0\0\0hi."), "\"hi\"");
    is_json(PICKLE("\x8c\2hi."), "\"hi\"");
    is_json(PICKLE("\x8d\2\0\0\0\0\0\0\0hi."), "\"hi\"");
    is_json(PICKLE("C\2\xff\xfe."), "null"); /* bytes have no JSON */
    is_json(PICKLE("]."), "[]");
    is_json(PICKLE("(K\1K\2l."), "[1, 2]");
    is_json(PICKLE("](K\1K\2eK\3a."), "[1, 2, 3]");
    is_json(PICKLE("(K\1K\2t."), "[1, 2]");
    is_json(PICKLE("\x8f(K\1K\2\x90."), "[1, 2]");
    is_json(PICKLE("}X\1\0\0\0aK\1s(X\1\0\0\0bK\2K\3Nu."), "{\"a\": 1, \"b\": 2, \"3\": null}");
    is_json(PICKLE("(X\1\0\0\0aK\1d."), "{\"a\": 1}");
    is_json(PICKLE("\x80\4\x95\3\0\0\0\0\0\0\0K\1."), "1");
    is_json(PICKLE("K\1q\0K\2\x94h\0h\1\x87."), "[2, 1, 2]");
}

/* Shared, popped and self-referring values. */
static void memo_and_stack(void **state)
{
    (void)state;
    is_json(PICKLE("(K\1p0\nK\2r\1\0\0\0g0\nj\1\0\0\0t."), "[1, 2, 1, 2]");
    is_json(PICKLE("K\1K\2"
                   "0."),
            "1");
    is_json(PICKLE("K\1(K\2K\3"
                   "1."),
            "1");
    is_json(PICKLE("K\1"
                   "2\x86."),
            "[1, 1]");
    struct pickle p;
    struct pv *root;
    assert_ok(read_it(&p, PICKLE("]q\0h\0a."), &root));
    assert_ptr_equal(root->at[0], root);
    assert_null(pv_json(root, 4096)); /* no end: refused, not run into */
    pickle_done(&p);
}

static void objects(void **state)
{
    (void)state;
    is_json(PICKLE("ccollections\nOrderedDict\n)RX\1\0\0\0aK\1s."), "{\"a\": 1}");
    is_json(PICKLE("ccollections\nOrderedDict\n](K\1K\2\x86"
                   "e\x85R."),
            "{\"1\": 2}");
    is_json(PICKLE("c__builtin__\nset\n](K\1K\2e\x85R."), "[1, 2]");
    is_json(PICKLE("ctorch\nSize\n(K\1K\2t\x85R."), "[1, 2]");
    is_json(PICKLE("cm.n\nC\n)\x81}X\1\0\0\0aK\1sb."), "{\"class\": \"m.n.C\", \"state\": {\"a\": 1}}");
    is_json(PICKLE("cdnnlib.util\nEasyDict\n)\x81(X\1\0\0\0aK\1u."),
            "{\"class\": \"dnnlib.util.EasyDict\", \"items\": {\"a\": 1}}");
    is_json(PICKLE("\x8c\1m\x8c\1"
                   "f\x93."),
            "\"m.f\"");
    struct pickle p;
    struct pv *root;
    assert_ok(read_it(&p,
                      PICKLE("c_codecs\nencode\nX\3\0\0\0\xc3\xbf"
                             "aX\6\0\0\0latin1\x86R."),
                      &root));
    assert_int_equal(root->kind, PV_BYTES);
    assert_int_equal(root->n, 2);
    assert_memory_equal(root->s,
                        "\xff"
                        "a",
                        2);
    pickle_done(&p);
    /* a bound method of an object is a record of both, and cannot be called */
    assert_ok(read_it(&p, PICKLE("cbuiltins\ngetattr\ncm\nC\n)\x81X\1\0\0\0m\x86R."), &root));
    assert_int_equal(root->kind, PV_RECORD);
    pickle_done(&p);
}

static void refusals(void **state)
{
    (void)state;
    says(PICKLE("cos\nsystem\n."), "refused: the file names os.system");
    says(PICKLE("cos.path\njoin\n."), "refused: the file names os.path.join");
    says(PICKLE("c__builtin__\neval\n."), "refused: the file names builtins.eval");
    says(PICKLE("cm\nf\n)R."), "refused: the file asks to call m.f");
    says(PICKLE("ctorch\nload\n)R."), "refused: the file asks to call torch.load");
    says(PICKLE("c__builtin__\nbytes\nK\1\x85R."), "refused: the file asks to call builtins.bytes");
    is_json(PICKLE("c__builtin__\nbytes\n)R."), "null");
    says(PICKLE("cm\nC\n)\x81)R."), "refused: the file asks to call something it computed");
    says(PICKLE("cbuiltins\ngetattr\ncm\nC\nX\1\0\0\0m\x86R."), "refused: getattr");
    says(PICKLE("(S'x'\nim\nf\n."), "refused: old opcode 'i'");
    says(PICKLE("(cm\nf\nS'x'\no."), "refused: old opcode 'o'");
    says(PICKLE("\x82\1."), "refused: an extension code");
    says(PICKLE("\x97."), "refused: an out-of-band buffer");
    says(PICKLE("Pa\n."), "refused: a persistent id");
    says(PICKLE("NQ."), "a persistent id where nothing");
    says(PICKLE("cm\n \n."), "odd characters");
    says(PICKLE("c_codecs\nencode\nX\3\0\0\0\xe2\x9c\x93X\6\0\0\0latin1\x86R."), "something but Latin-1");
}

static void malformed(void **state)
{
    (void)state;
    says(PICKLE(""), "ends without STOP");
    says(PICKLE("K\1"), "ends without STOP");
    says(PICKLE("."), "empty stack");
    says(PICKLE("0."), "empty stack");
    says(PICKLE("(."), "empty stack");
    says(PICKLE("t."), "a mark that is not there");
    says(PICKLE("K\1K\2s."), "empty stack");
    says(PICKLE("K\1K\2K\3s."), "items for something that has none");
    says(PICKLE("K\1K\2b."), "state for something that is no object");
    says(PICKLE("}(K\1u."), "odd number");
    says(PICKLE("(K\1d."), "odd number");
    says(PICKLE("h\5."), "memo slot 5 is empty");
    says(PICKLE("g-1\n."), "bad memo slot");
    says(PICKLE("Nr\xff\xff\xff\x7f."), "memo slot 2147483647");
    says(PICKLE("\xff."), "0xff is no opcode");
    says(PICKLE("\x80\x09."), "protocol 9");
    says(PICKLE("\x95\xff\xff\xff\xff\xff\xff\xff\x7f."), "a frame of 9223372036854775807 bytes");
    says(PICKLE("X\xff\xff\xff\xff"
                "a."),
         "4294967295 bytes are announced");
    says(PICKLE("\x8d\xff\xff\xff\xff\xff\xff\xff\xff"
                "a."),
         "bytes are announced");
    says(PICKLE("\x8b\xff\xff\xff\x7f."), "bytes are announced");
    says(PICKLE("X\2\0\0\0\xc3(."), "not UTF-8");
    says(PICKLE("X\3\0\0\0\xed\xa0\x80."), "not UTF-8"); /* half a surrogate pair */
    says(PICKLE("X\2\0\0\0\xc0\x80."), "not UTF-8");     /* NUL the long way */
    says(PICKLE("I12x\n."), "a bad integer");
    says(PICKLE("Fabc\n."), "a bad number");
    says(PICKLE("Sabc\n."), "without quotes");
    says(PICKLE("S'\\xg0'\n."), "bad escape");
    says(PICKLE("V\\u12\n."), "bad escape");
    says(PICKLE("Vabc"), "a line without end");
    says(PICKLE("NN\x81."), "something but a class");
    says(PICKLE("cm\nC\nNR."), "no tuple");
}

static void says_text(const struct text *t, const char *words)
{
    says(t->s, t->len, words);
}

static void absurd_sizes(void **state)
{
    (void)state;
    struct text t = {0};
    text_add(&t, "\x8b");
    text_addn(&t, "\0\x10\0\0", 4); /* an integer of 4096 bytes: quadratic to print */
    for (int i = 0; i < 4096; i++) text_addn(&t, "\1", 1);
    text_add(&t, ".");
    says_text(&t, "an integer of 4096 bytes");
    text_done(&t);

    text_add(&t, "c");
    for (int i = 0; i < 5000; i++) text_add(&t, "m");
    text_add(&t, "\nC\n.");
    says_text(&t, "a name without end");
    text_done(&t);

    /* one long text, decoded again and again, is decoded once */
    struct pickle p;
    struct pv *root;
    text_add(&t, "(c_codecs\nencode\nq\1X");
    text_addn(&t, "\0\x10\0\0", 4);
    for (int i = 0; i < 4096; i++) text_add(&t, "a");
    text_addn(&t, "q\2X\6\0\0\0latin1q\3", 15);
    text_add(&t, "t");
    for (int i = 0; i < 2000; i++) text_add(&t, "h\1h\2h\3\x86R0");
    text_add(&t, ".");
    size_t before = mem_live();
    assert_ok(read_it(&p, t.s, t.len, &root));
    assert_true(mem_live() - before < 100 * t.len);
    pickle_done(&p);
    text_done(&t);
}

/* Whatever one-byte opcodes do, memory stays within a constant times the file. */
static void bounded_memory(void **state)
{
    (void)state;
    static const char ops[] = "]})(N\x8f\x88";
    size_t n = 100000;
    char *data = mem_alloc(n);
    for (size_t i = 0; i + 1 < sizeof ops; i++) {
        struct pickle p;
        struct pv *root;
        memset(data, ops[i], n);
        uint64_t before = mem_live(), peak = mem_peak();
        err_t err = read_it(&p, data, n, &root);
        assert_int_equal(err, ERR_FORMAT);
        assert_true(mem_live() - before < 200 * n);
        assert_true(mem_peak() <= peak + 200 * n);
        pickle_done(&p);
    }
    /* a dict copied from itself over and over grows as 2^k: the budget ends it */
    struct text t = {0};
    struct pickle p;
    struct pv *root;
    text_add(&t, "ccollections\nOrderedDict\nq\1");
    text_add(&t, "}(");
    for (int i = 0; i < 200; i++) text_add(&t, "NN");
    text_add(&t, "uq\2");
    for (int i = 0; i < 4000; i++) text_add(&t, "h\1h\2\x85R");
    text_add(&t, ".");
    assert_err(ERR_FORMAT, read_it(&p, t.s, t.len, &root));
    assert_has(err_text(), "more memory than a file of its size can need");
    pickle_done(&p);
    text_done(&t);
    mem_free(data);
}

/* Cut anywhere, or with any one byte replaced: never more than an error. */
static void cuts_and_flips(void **state)
{
    (void)state;
    static const char good[] = "\x80\2}q\0(X\1\0\0\0aq\1ccollections\nOrderedDict\nq\2)Rq\3X\1\0\0\0bK\1s"
                               "X\1\0\0\0cq\4](G\x3f\xf0\0\0\0\0\0\0\x8a\x09\0\0\0\0\0\0\0\0\1Nh\1e\x86q\5u.";
    size_t n = sizeof good - 1, refused = 0;
    char *data = mem_alloc(n);
    struct pickle p;
    struct pv *root;
    for (size_t cut = 0; cut < n; cut++) {
        memcpy(data, good, cut);
        assert_err(ERR_FORMAT, read_it(&p, data, cut, &root));
        pickle_done(&p);
    }
    for (size_t i = 0; i < n; i++) {
        for (int v = 0; v < 256; v++) {
            size_t used;
            memcpy(data, good, n);
            data[i] = (char)v;
            pickle_init(&p, n);
            err_t err = pickle_read(&p, data, n, &root, &used);
            assert_true(err == ERR_OK || err == ERR_FORMAT);
            refused += err != ERR_OK;
            if (!err) mem_free(pv_json(root, 4096));
            pickle_done(&p);
        }
    }
    assert_true(refused > 1000);
    mem_free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(values),         cmocka_unit_test(memo_and_stack),
                                       cmocka_unit_test(objects),        cmocka_unit_test(refusals),
                                       cmocka_unit_test(malformed),      cmocka_unit_test(absurd_sizes),
                                       cmocka_unit_test(bounded_memory), cmocka_unit_test(cuts_and_flips)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
