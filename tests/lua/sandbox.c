/* What a script must not reach, and how it ends when it does not end. */
#include "tests/lua/lua_test.h"

static void outside(void **state)
{
    (void)state;
    static const char *const names[] = {"os",     "io",       "debug",  "package", "load",           "loadstring",
                                        "dofile", "loadfile", "rawset", "rawget",  "collectgarbage", "coroutine",
                                        "next",   "host"};
    char text[128], says[64];
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        snprintf(text, sizeof text, "\nlocal x = %s", names[i]);
        snprintf(says, sizeof says,
                 strcmp(names[i], "host") ? "dir/test.lua:2: '%s' is not available"
                                          : "dir/test.lua:2: no variable '%s'",
                 names[i]);
        refused(text, says);
    }
    refused("string.dump(print)", "string has no 'dump'");
    refused("local s = ('').dump(print)", "attempt to call a nil value");
    refused("require 'os'", "scripts can use 'ect' and its parts only");
    refused("require 'ect.settings'", "scripts can use 'ect' and its parts only");
    refused("require '../../etc/passwd'", "scripts can use 'ect' and its parts only");
    refused("\x1bLua", "attempt to load a binary chunk");
}

static void read_only(void **state)
{
    (void)state;
    refused("getmetatable('').__index = nil", "attempt to index a boolean value");
    refused("math.exp = nil", "math is read-only");
    refused("string.format = nil", "string is read-only");
    refused("local ect = require 'ect'\nect.mapping.sigmoid = nil", "dir/test.lua:2: ect.mapping is read-only");
    refused("setmetatable(math, {})", "cannot change a protected metatable");
    refused("getmetatable(math).__index = {}", "attempt to index a string value"); /* of a name, not of the table */
    refused("x = 1", "dir/test.lua:1: 'x' is not a local variable");
    refused("_G.x = 1", "no variable '_G'");
    refused("setmetatable({}, {__gc = function() end})", "__gc");
    refused("setmetatable({}, {__mode = 'k'})", "__mode");
    refused("local ect = require 'ect'\nlocal r = ect.run 'r' {}\nr.weights = 1",
            "dir/test.lua:3: a run is changed by its methods only");
}

/* Nothing that differs from one process to the next. */
static void deterministic(void **state)
{
    (void)state;
    refused("local x = ('%p'):format({})", "format: %p would show an address");
    const char *text =
        "assert(tostring({}) == 'table' and tostring(print) == 'function' and ('%s'):format({}) == 'table')\n"
        "local keys = {} for k in pairs { z = 1, a = 1, [10] = 1, [2] = 1, m = 1 } do keys[#keys + 1] = k end\n"
        "assert(table.concat(keys, ' ') == '2 10 a m z')\n"
        "local a, b = math.random(), math.random(6) math.randomseed(0)\n"
        "assert(a == math.random() and b == math.random(6) and a ~= math.random() and a >= 0 and a < 1)\n"
        "math.randomseed(5) assert(a ~= math.random())\n"
        "local t = {} for i = 1, 500 do t[i] = { (i * 7919) % 10, i } end\n"
        "table.sort(t, function(x, y) return x[1] < y[1] end)\n"
        "for i = 2, 500 do assert(t[i-1][1] < t[i][1] or t[i-1][1] == t[i][1] and t[i-1][2] < t[i][2]) end\n"
        "error(('%.17g'):format(a))";
    char first[128];
    struct script *s;
    for (int i = 0; i < 3; i++) {
        assert_err(ERR_USAGE, open_text(&s, text));
        assert_has(err_text(), "dir/test.lua:10: 0.");
        if (!i) snprintf(first, sizeof first, "%s", err_text());
        assert_string_equal(first, err_text());
    }
    refused("math.randomseed()", "whole number");
    struct script *x =
        accepted("local ect = require 'ect'\n" /* a failed design function does not forbid chance afterwards */
                 "assert(not pcall(function() ect.run 'r' { { mapping = function() error 'x' end } } end))\n"
                 "math.random()");
    script_close(x);
}

static void limits(void **state)
{
    (void)state;
    refused("\nwhile true do end", "dir/test.lua:2: more than 100 million instructions");
    refused("while true do pcall(function() while true do end end) end", "more than 100 million instructions");
    refused("while true do xpcall(function() while true do end end, function() while true do end end) end",
            "million instructions");
    refused("local s = 'x' while true do s = s .. s end", "more than 256 MiB of memory");
    refused("local t = {} for i = 1, 1e9 do t[i] = {} end", "more than 256 MiB of memory");
    refused("local s = ('x'):rep(1e12)", "too large");
    refused("local function f() return 1 + f() end f()", "stack overflow");
    refused("local s = ('('):rep(1000) .. 'x' string.find('x', s)", "too many captures");
    refused("local t = {} for i = 1, 1e5 do t = { t } end local ect = require 'ect'\n"
            "ect.run 'r' { { mapping = function(x) return x, t end } }",
            "dir/test.lua:2: design function: upvalue 't' is nested too deeply");
}

static void messages(void **state)
{
    (void)state;
    refused("\n\nlocal x = = 1", "dir/test.lua:3: unexpected symbol near '='");
    refused("\nerror('boom')", "dir/test.lua:2: boom");
    refused("error({})", "error object is a table value");
    refused("local function f()\n error('deep') end\nf()", "dir/test.lua:2: deep\nstack traceback");
    refused("math.exxp(1)", "dir/test.lua:1: math has no 'exxp': did you mean 'exp'?");
    struct script *s;
    assert_err(ERR_IO, script_open(&s, "/nowhere/at/all.lua", NULL, NULL, 0, NULL));
    assert_null(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(outside), cmocka_unit_test(read_only),
                                       cmocka_unit_test(deterministic), cmocka_unit_test(limits),
                                       cmocka_unit_test(messages)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
