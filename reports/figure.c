/* figure: curves and points as SVG, drawn by gnuplot in a process of its own (posix_spawn, script from an unlinked file, SVG from its
 * standard output). Its SVG is then made fit for inlining: no prolog, no version, ids that are unique in the page, and black turned into
 * currentColor, so a figure follows the page into the dark. */
#include <errno.h>
#include <math.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "reports/block.h"

const char *const palette[PALETTE] = {"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A8A8A"};

enum { WIDTH = 480, HEIGHT = 340 };
/* Filled and hollow of the same shape; a series is told by shape as well as by colour. */
static const int solid[PALETTE] = {7, 5, 9, 13, 11, 15, 7}, open_[PALETTE] = {6, 4, 8, 12, 10, 14, 6};

static bool drawable(double v, bool log_axis)
{
    return isfinite(v) && (!log_axis || v > 0);
}

static void put_quoted(struct text *o, const char *s)
{
    text_add(o, "'");
    for (; *s; s++) text_addn(o, *s == '\'' ? "''" : *s == '\n' ? " " : s, *s == '\'' ? 2 : 1);
    text_add(o, "'");
}

/* Labels of our own, because gnuplot labels whole decades only: 1, 2, 5 in each decade, or evenly where even those are too few. */
static void put_tick(struct text *o, double v, int *n)
{
    char b[32];
    int power = (int)floor(log10(fabs(v)) + 1e-9);
    if (v != 0 && (power >= 5 || power <= -4)) {
        double m = v / pow(10, power);
        if (fabs(m - 1) < 1e-6) snprintf(b, sizeof b, "10^{%d}", power);
        else snprintf(b, sizeof b, "%.3g×10^{%d}", m, power);
    } else snprintf(b, sizeof b, "%.4g", v);
    text_addf(o, "%s'%s' %.8g", *n ? ", " : "", b, v);
    ++*n;
}

static void put_log_ticks(struct text *o, char axis, double lo, double hi)
{
    static const double all[] = {1, 2, 5}, one[] = {1};
    bool sparse = hi / lo > 2e3;
    int count = 0, n = 0, skip = hi / lo > 1e8 ? 2 : 1;
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1) text_addf(o, "set %ctics (", axis);
        for (int k = (int)floor(log10(lo)); k <= (int)ceil(log10(hi)); k++)
            for (size_t i = 0; i < (sparse ? ARRAY_LEN(one) : ARRAY_LEN(all)); i++) {
                double v = all[i] * pow(10, k);
                if (v < lo || v > hi || (skip > 1 && k % skip)) continue;
                if (pass == 0) count++;
                else put_tick(o, v, &n);
            }
        if (pass == 0 && count < 3) {
            double raw = (hi - lo) / 4, unit = pow(10, floor(log10(raw))),
                   step = unit * (raw / unit > 5   ? 10
                                  : raw / unit > 2 ? 5
                                  : raw / unit > 1 ? 2
                                                   : 1);
            text_addf(o, "set %ctics (", axis);
            for (double v = ceil(lo / step) * step; v <= hi; v += step) put_tick(o, v, &n);
            break;
        }
    }
    text_add(o, ")\n");
}

static void put_axis(struct text *o, char axis, const struct raxis *a, double lo, double hi)
{
    text_addf(o, "set %clabel ", axis);
    put_quoted(o, a->label);
    text_add(o, " noenhanced\n");
    if (a->log) {
        double pad = fmax(exp(log(hi / lo) * .06), 1.05);
        text_addf(o, "set logscale %c\nset %crange [%.6g:%.6g]\n", axis, axis, lo / pad, hi * pad);
        put_log_ticks(o, axis, lo / pad, hi * pad);
        return;
    }
    double pad = hi > lo ? (hi - lo) * .06 : fabs(lo) * .05 + 1e-12;
    if (hi >= 1e6) text_addf(o, "set format %c '%%.3g'\n", axis);
    text_addf(o, "set %crange [%.6g:%.6g]\n", axis, axis == 'x' && lo >= 0 && lo < hi * .1 ? 0 : lo - pad, hi + pad);
}

static bool bounds(const struct rfigure *f, double b[4])
{
    b[0] = b[2] = INFINITY, b[1] = b[3] = -INFINITY;
    for (int i = 0; i < f->nseries; i++) {
        const struct rseries *s = &f->series[i];
        for (int k = 0; k < s->n; k++) {
            if (!drawable(s->x[k], f->x.log) || !drawable(s->y[k], f->y.log)) continue;
            b[0] = fmin(b[0], s->x[k]), b[1] = fmax(b[1], s->x[k]);
            b[2] = fmin(b[2], s->y[k]), b[3] = fmax(b[3], s->y[k]);
            if (s->lo && drawable(s->lo[k], f->y.log)) b[2] = fmin(b[2], s->lo[k]);
            if (s->hi && drawable(s->hi[k], f->y.log)) b[3] = fmax(b[3], s->hi[k]);
        }
    }
    return b[0] <= b[1];
}

static void put_script(struct text *o, const struct rfigure *f, const double b[4])
{
    text_addf(o, "set terminal svg size %d,%d dynamic font 'sans-serif,13' linewidth 1\nset encoding utf8\nunset key\n",
              WIDTH, HEIGHT);
    text_add(o, "set border 3 lw .8\nset tics nomirror out scale .6\nset grid lw .6 lc rgb '#808080' lt 1 dt (1,3)\n");
    put_axis(o, 'x', &f->x, b[0], b[1]);
    put_axis(o, 'y', &f->y, b[2], b[3]);
    for (int i = 0; i < f->nseries; i++) {
        const struct rseries *s = &f->series[i];
        text_addf(o, "$d%d << EOD\n", i);
        int n = 0;
        for (int k = 0; k < s->n; k++) {
            if (!drawable(s->x[k], f->x.log) || !drawable(s->y[k], f->y.log)) continue;
            bool band = s->lo && s->hi && drawable(s->lo[k], f->y.log) && drawable(s->hi[k], f->y.log);
            text_addf(o, "%.8g %.6g %.6g %.6g\n", s->x[k], s->y[k], band ? s->lo[k] : s->y[k],
                      band ? s->hi[k] : s->y[k]);
            n++;
        }
        if (!n) text_addf(o, "NaN NaN NaN NaN\n");
        text_add(o, "EOD\n");
    }
    const char *sep = "plot ";
    for (int pass = 0; pass < 2; pass++) /* bands under lines */
        for (int i = 0; i < f->nseries; i++) {
            const struct rseries *s = &f->series[i];
            int c = s->color % PALETTE;
            if (!s->n) continue;
            if (pass == 0 && s->lo && s->line)
                text_addf(o, "%s$d%d u 1:3:4 w filledcurves fc rgb '%s' fs transparent solid .15 notitle", sep, i,
                          palette[c]),
                    sep = ", ";
            if (pass == 0 && s->lo && !s->line)
                text_addf(o, "%s$d%d u 1:3:(0):($4-$3) w vectors nohead lw 1.2 lc rgb '%s' notitle", sep, i,
                          palette[c]),
                    sep = ", ";
            if (pass == 1 && s->line)
                text_addf(o, "%s$d%d u 1:2 w lines lw 1.7 lc rgb '%s' notitle", sep, i, palette[c]), sep = ", ";
            if (pass == 1 && s->points)
                text_addf(o, "%s$d%d u 1:2 w points pt %d ps .9 lw 1.4 lc rgb '%s' notitle", sep, i,
                          s->hollow ? open_[c] : solid[c], palette[c]),
                    sep = ", ";
        }
    text_add(o, "\n");
}

static err_t read_all(int fd, struct text *o)
{
    char b[65536];
    for (;;) {
        ssize_t n = read(fd, b, sizeof b);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail(ERR_IO, "gnuplot: %s", strerror(errno));
        if (n == 0) return ERR_OK;
        text_addn(o, b, (size_t)n);
    }
}

/* -d: without the user's own settings. */
static err_t run_gnuplot(const char *script, size_t len, struct text *svg)
{
    static char *const argv[] = {"gnuplot", "-d", NULL};
    char *path = mem_printf("PATH=%s", getenv("PATH") ? getenv("PATH") : "/usr/bin:/bin");
    char *env[] = {path, "LC_ALL=C.UTF-8", NULL};
    posix_spawn_file_actions_t fa;
    int out[2] = {-1, -1}, status = 0;
    pid_t pid;
    err_t err = ERR_OK;
    FILE *in = tmpfile();
    if (!in || fwrite(script, 1, len, in) != len || fflush(in)) {
        err = fail(ERR_IO, "gnuplot: temporary file: %s", strerror(errno));
        goto done;
    }
    lseek(fileno(in), 0, SEEK_SET);
    if (pipe(out)) {
        err = fail(ERR_IO, "gnuplot: pipe: %s", strerror(errno));
        goto done;
    }
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_adddup2(&fa, fileno(in), 0);
    posix_spawn_file_actions_adddup2(&fa, out[1], 1);
    posix_spawn_file_actions_addopen(&fa, 2, "/dev/null", 1, 0);
    posix_spawn_file_actions_addclose(&fa, out[0]);
    posix_spawn_file_actions_addclose(&fa, out[1]);
    int e = posix_spawnp(&pid, argv[0], &fa, NULL, argv, env);
    posix_spawn_file_actions_destroy(&fa);
    close(out[1]);
    out[1] = -1;
    if (e) {
        err = fail(ERR_NO_DATA, "gnuplot is not installed (apt-get install gnuplot-nox)");
        goto done;
    }
    err = read_all(out[0], svg);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
    if (!err && WIFEXITED(status) && WEXITSTATUS(status) == 127)
        err = fail(ERR_NO_DATA, "gnuplot is not installed (apt-get install gnuplot-nox)");
    else if (!err && (status || !svg->len))
        err = fail(ERR_FAILED, "gnuplot could not draw the figure (status %d)", status);
done:
    if (in) fclose(in);
    if (out[0] >= 0) close(out[0]);
    if (out[1] >= 0) close(out[1]);
    mem_free(path);
    return err;
}

static bool starts(const char *s, const char *with)
{
    return !strncmp(s, with, strlen(with));
}

/* Copies gnuplot's SVG without what does not belong into a page. */
static void put_clean(struct text *o, const char *svg, const char *id)
{
    static const char *const black[] = {"stroke='black'", "fill=\"black\"", "stroke=\"black\"", "fill='black'"};
    const char *s = strstr(svg, "<svg");
    s = s ? strchr(s, '>') : NULL;
    if (!s) return;
    text_addf(o, "<svg viewBox=\"0 0 %d %d\" role=\"img\">", WIDTH, HEIGHT);
    for (s++; *s;) {
        bool done = false;
        if (starts(s, "<title>") || starts(s, "<desc>")) {
            const char *end = strstr(s, starts(s, "<title>") ? "</title>" : "</desc>");
            s = end ? strchr(end, '>') + 1 : s + 1;
            continue;
        }
        if (starts(s, "<g ")) { /* gnuplot opens many groups that stay empty */
            const char *in = strchr(s, '>');
            in = in ? in + 1 + strspn(in + 1, " \n\t") : s;
            if (starts(in, "</g>")) {
                s = in + 4;
                continue;
            }
        }
        if (starts(s, "<filter")) { /* of text boxes, which are not used */
            const char *end = strstr(s, "</filter>");
            s = end ? end + 9 : s + 1;
            continue;
        }
        if (starts(s, " color=\"black\"") || starts(s, " color=\"white\"") ||
            starts(s, " font-family=\"sans-serif\"")) {
            s = strchr(strchr(s, '"') + 1, '"') + 1;
            continue;
        }
        for (size_t i = 0; i < ARRAY_LEN(black) && !done; i++)
            if (starts(s, black[i])) {
                text_add(o, strchr(black[i], 's') == black[i] ? "stroke=\"currentColor\"" : "fill=\"currentColor\"");
                s += strlen(black[i]);
                done = true;
            }
        if (done) continue;
        if (starts(s, "gpPt") || starts(s, "gpDot") || starts(s, "gnuplot_")) text_addf(o, "%s-", id);
        if (*s == '\n' || *s == '\t') {
            if (o->len && o->s[o->len - 1] != '\n') text_add(o, "\n");
            while (*s == '\n' || *s == '\t' || *s == ' ') s++;
            continue;
        }
        text_addn(o, s++, 1);
    }
    text_add(o, "\n");
}

err_t figure_svg(const struct rfigure *f, struct text *out)
{
    struct text script = {0}, svg = {0};
    double b[4];
    err_t err = ERR_OK;
    if (!bounds(f, b)) return fail(ERR_NOT_FOUND, "no points to draw yet");
    put_script(&script, f, b);
    TRYD(run_gnuplot(script.s, script.len, &svg));
    put_clean(out, svg.s, f->id ? f->id : "figure");
done:
    text_done(&script);
    text_done(&svg);
    return err;
}
