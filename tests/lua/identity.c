/* When are two design functions the same run? */
#include "tests/lua/lua_test.h"

/* Config hash of a run whose mapping is made by this text: lines before, then the expression. */
static void hash_of(const char *before, const char *mapping, char out[SHA256_TEXT])
{
    char text[4096];
    snprintf(text, sizeof text, "local ect = require 'ect'\n%s\nect.run 'r' { { mapping = %s } }", before, mapping);
    struct script *s = accepted(text);
    strcpy(out, script_cell_at(s, 0)->hash);
    script_close(s);
}
static void same(const char *before_a, const char *a, const char *before_b, const char *b)
{
    char x[SHA256_TEXT], y[SHA256_TEXT];
    hash_of(before_a, a, x);
    hash_of(before_b, b, y);
    if (strcmp(x, y)) fail_msg("differ:\n%s\n%s\nand\n%s\n%s", before_a, a, before_b, b);
}
static void differ(const char *before_a, const char *a, const char *before_b, const char *b)
{
    char x[SHA256_TEXT], y[SHA256_TEXT];
    hash_of(before_a, a, x);
    hash_of(before_b, b, y);
    if (!strcmp(x, y)) fail_msg("the same:\n%s\n%s\nand\n%s\n%s", before_a, a, before_b, b);
}

static void tokens(void **state)
{
    (void)state;
    const char *f = "function(t, s) return t / 2 end";
    same("", f, "", "function(t,s)\n  -- half\n  return t/2 --[[ a long\n one ]] end");
    same("", f, "-- elsewhere\nlocal unused = 3", f);
    same("", f, "local function f(t, s)\nreturn t / 2\nend", "f"); /* the name is not what it computes */
    differ("", f, "", "function(t, s) return t / 3 end");
    differ("", f, "", "function(t, s) return t / 2. end");
    differ("", "function(t, s) return #'a b' * 0 + t end", "",
           "function(t, s) return #'a  b' * 0 + t end"); /* blanks in text count */
    same("", "function(t, s) return #[[x]] * 0 + t end", "", "function(t, s) return # [[x]] * 0 + t end");
    same("",
         "function(t, s) if t > 1 then return t / 2 end for i = 1, 2 do t = t / i end while false do end repeat t = t "
         "until true return t end",
         "",
         "function(t, s) if t > 1 then\n return t / 2 end for i = 1, 2 do t = t / i end\nwhile false do end repeat t = "
         "t until true return t end");
}

static void upvalues(void **state)
{
    (void)state;
    const char *f = "function(t, s) return t / k end";
    same("local k = 2", f, "local k = 2 -- two", f);
    same("local k = 2.0", f, "local k = 2.00", f);
    differ("local k = 2", f, "local k = 3", f);
    differ("local k = 2", "function(t, s) return k and t end", "local k = true", "function(t, s) return k and t end");
    differ("local k = 'a'", "function(t, s) return t * #k / 2 end", "local k = 'b'",
           "function(t, s) return t * #k / 2 end");
    /* tables, whatever the order they were written in */
    const char *g = "function(t, s) return t / k.a end";
    same("local k = {a = 2, b = {1, 2}}", g, "local k = {} k.b = {1, 2} k.a = 2", g);
    differ("local k = {a = 2, b = {1, 2}}", g, "local k = {a = 2, b = {1, 3}}", g);
    /* functions, recursively */
    const char *h = "function(t, s) return half(t) end";
    same("local n = 2\nlocal function half(t) return t / n end", h,
         "local n = 2\nlocal half = function(t)\n return t / n end", h);
    differ("local n = 2\nlocal function half(t) return t / n end", h,
           "local n = 3\nlocal function half(t) return t / n end", h);
    /* a function that calls itself */
    const char *r = "function(t, s) return down(t, 3) end";
    same("local function down(t, n) return n == 0 and t or down(t / 2, n - 1) end", r,
         "local function down(t, n)\nreturn n == 0 and t or down(t / 2, n - 1) end", r);
    /* the libraries are constants, whether global or local */
    same("local exp = math.exp", "function(t, s) return t * exp(-t) end", "local exp = math.exp ",
         "function(t, s) return t * exp(-t) end");
    differ("local exp = math.exp", "function(t, s) return t * exp(-t) end", "local exp = math.cos",
           "function(t, s) return t * exp(-t) ^ 2 end");
    same("", "function(t, s) return t * math.exp(-t) end", "", "function(t, s) return t * math.exp(-t) end");
    /* library functions as building blocks */
    const char *b = "function(t, s) return base(t, s) / 2 end";
    same("local base = ect.mapping.sigmoid{k = 4}", b, "local base = ect.mapping.sigmoid{k = 4.0, q = 2}", b);
    differ("local base = ect.mapping.sigmoid{k = 4}", b, "local base = ect.mapping.sigmoid{k = 5}", b);
}

static void library(void **state)
{
    (void)state;
    same("", "ect.mapping.sigmoid{}", "", "ect.mapping.sigmoid{b = 1, k = 8, q = 2}");
    same("", "ect.mapping.sigmoid{}", "local m = ect.mapping", "m.sigmoid{q = 2.0}");
    differ("", "ect.mapping.sigmoid{}", "", "ect.mapping.sigmoid{k = 4}");
    differ("", "ect.mapping.const{}", "", "function(t, s) return t * (1 - 1 / 2 ^ (s.stage + 1)) end");
    struct script *s = accepted("local ect = require 'ect'\nect.run 'r' { { mapping = ect.mapping.const{q = 3}, "
                                "dropout = ect.dropout.const{p = .5} } }");
    assert_string_equal(script_cell_at(s, 0)->spec.mapping.id, "const(q=3)@1");
    assert_string_equal(script_cell_at(s, 0)->spec.dropout.id, "0.5"); /* a constant has one spelling */
    assert_string_equal(script_cell_at(s, 0)->spec.noise.id, "lognormal(mean=-1.1,std=2)@1");
    script_close(s);
}

/* Closures of a loop differ in k and are different cells; what is bound is each one's own. */
static void loop(void **state)
{
    (void)state;
    struct script *s = accepted("local ect = require 'ect'\n"
                                "local f = {}\n"
                                "for k = 2, 4 do f['k' .. k] = function(t, s) return t / k end end\n"
                                "ect.sweep 's' {}:ablate { mapping = f }");
    assert_int_equal(script_ncells(s), 4);
    for (int i = 1; i < 4; i++) {
        struct design d;
        double t = 12, r;
        assert_ok(script_design(s, i, &d));
        assert_ok(d.mapping(d.ctx, &(struct design_state){.iters = 1, .batch = 1}, 1, &t, &r));
        assert_true(r == 12.0 / (i + 1));
        for (int j = 0; j < i; j++) assert_string_not_equal(script_cell_at(s, i)->hash, script_cell_at(s, j)->hash);
    }
    assert_string_equal(script_cell_at(s, 1)->cell, "mapping=k2");
    script_close(s);
}

/* The worker's way: the stored text, run again, gives the same hashes. */
static void again(void **state)
{
    (void)state;
    const char *text =
        "local ect = require 'ect'\nlocal k = 3\n"
        "local s = ect.sweep 's' { base = ect.recipe 'digits-ect' }\n"
        "s:grid { mapping = { a = function(t, s)\nreturn t / k end, b = ect.mapping.zero{} }, c = {0, ect.c_rule()} }";
    struct script *a = accepted(text), *b = accepted(text);
    for (int i = 0; i < script_ncells(a); i++) assert_int_equal(script_find_cell(b, script_cell_at(a, i)->hash), i);
    assert_int_equal(script_find_cell(b, "0000"), -1);
    assert_string_equal(script_cell_at(a, 0)->fingerprints, script_cell_at(b, 0)->fingerprints);
    assert_has(script_cell_at(a, 0)->fingerprints, "mapping lua:");
    assert_has(script_cell_at(a, 0)->fingerprints, "noise lognormal(mean=-1.1,std=2)@1 ");
    script_close(a);
    script_close(b);
}

static void refusals(void **state)
{
    (void)state;
#define HEAD "local ect = require 'ect'\n"
    refused(HEAD "local f, g = function(t) return t end, function(t) return 0 end\nect.run 'r' { { mapping = f } }",
            "dir/test.lua:2: design function: two functions on one line");
    refused(HEAD "local k = setmetatable({}, {__index = function() return 1 end})\n\nect.run 'r' { { mapping = "
                 "function(t) return t * k.x end } }",
            "dir/test.lua:4: design function: upvalue 'k' is a table with a metatable");
    refused(HEAD "local n = 0\nect.run 'r' { { mapping = function(t)\n n = n + 1 return t / n end } }",
            "dir/test.lua:3: design function: it changes its upvalues");
    refused(HEAD "local seen = {}\nect.run 'r' { { mapping = function(t)\n seen[#seen + 1] = 1 return t / 2 end } }",
            "it changes its upvalues");
    refused(HEAD "ect.run 'r' { { mapping = function(t)\n return t * math.random() end } }",
            "math.random in a design function");
    refused(HEAD "ect.run 'r' { { mapping = function(t)\n return t * ect.arg('x', .5) end } }",
            "arg in a design function");
    refused(HEAD "ect.run 'r' { { mapping = math.sqrt } }", "wrap it in a Lua function");
    refused(HEAD "ect.run 'r' { { mapping = ect.weight.inv_dt{} } }", "ect.weight.inv_dt is a function for 'weight'");
    refused(HEAD "ect.run 'r' { {\n mapping = function(t)\n return t.x end } }",
            "dir/test.lua:4: attempt to index a number value");
    refused(HEAD "ect.run 'r' { {\n mapping = function(t)\n return t * 2 end } }",
            "dir/test.lua:3: mapping(t=0.003, s) = 0.006 must not be larger than t");
    refused(HEAD "ect.run 'r' { {\n weight = function(t)\n return 0/0 end } }", "is nan");
    refused(HEAD "ect.run 'r' { {\n lr = function(s)\n return s.stp end } }", "s has no field 'stp'");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(tokens),  cmocka_unit_test(upvalues),
                                       cmocka_unit_test(library), cmocka_unit_test(loop),
                                       cmocka_unit_test(again),   cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
