/* print: results on standard output, and numbers for people. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "reports/report.h"
#include "runner/runner.h"

bool print_color(void)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(STDOUT_FILENO) && !(no && *no) && !(term && !strcmp(term, "dumb"));
}

int print_width(int fd)
{
    struct winsize w;
    if (!isatty(fd)) return 0;
    return ioctl(fd, TIOCGWINSZ, &w) == 0 && w.ws_col ? w.ws_col : 80;
}

int text_columns(const char *s)
{
    int n = 0;
    for (; *s; s++) n += (*s & 0xc0) != 0x80;
    return n;
}

void print_table(const struct args *a, const struct table *t)
{
    struct text out = {0};
    struct table_style style = {
        .format = args_has(a, "json") ? "json" : NULL, .width = print_width(STDOUT_FILENO), .color = print_color()};
    table_print(t, &style, &out);
    fputs(text_str(&out), stdout);
    text_done(&out);
}

char *human_count(char buf[NUM_TEXT], double v)
{
    static const char *const unit[] = {"", "k", "M", "G", "T", "P", "E", "Z"};
    size_t u = 0;
    if (!isfinite(v)) return strcpy(buf, "unknown");
    while (fabs(v) >= 999.5 && u + 1 < ARRAY_LEN(unit)) v /= 1000, u++;
    snprintf(buf, NUM_TEXT, u || v != floor(v) ? "%.3g%s" : "%.0f%s", v, unit[u]);
    return buf;
}

char *human_bytes(char buf[NUM_TEXT], double v)
{
    char n[NUM_TEXT];
    human_count(n, v);
    size_t len = strlen(n);
    bool unit = len && strchr("kMGTPEZ", n[len - 1]);
    snprintf(buf, NUM_TEXT, "%.*s %cB", (int)(unit ? len - 1 : len), n, unit ? n[len - 1] : ' ');
    return buf;
}

char *human_seconds(char buf[NUM_TEXT], double s)
{
    if (!isfinite(s)) return strcpy(buf, "unknown");
    long t = (long)(s + 0.5);
    if (s < 10) snprintf(buf, NUM_TEXT, "%.1f s", s);
    else if (s < 120) snprintf(buf, NUM_TEXT, "%ld s", t);
    else if (s < 7200) snprintf(buf, NUM_TEXT, "%ld min %02ld s", t / 60, t % 60);
    else if (s < 48 * 3600) snprintf(buf, NUM_TEXT, "%ld h %02ld min", t / 3600, t / 60 % 60);
    else snprintf(buf, NUM_TEXT, "%ld d %02ld h", t / 86400, t / 3600 % 24);
    return buf;
}
