#include "runner/progress.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runner/runner.h"

enum { DRAW_MS = 120, PLAIN_MS = 10000 };

static int64_t now_ms(void)
{
    return host.mono_ns() / 1000000;
}

void progress_init(struct progress *p, bool quiet)
{
    const char *term = getenv("TERM"), *no = getenv("NO_COLOR");
    *p = (struct progress){.quiet = quiet, .began_ms = now_ms(), .first_share = -1};
    p->live = !quiet && isatty(STDERR_FILENO) && term && strcmp(term, "dumb");
    p->color = p->live && !(no && *no);
}

bool progress_take(struct progress_run *r, const char *line)
{
    long long step, iters;
    double ips, loss;
    int done, total;
    if (!strncmp(line, "phase ", 6)) {
        snprintf(r->phase, sizeof r->phase, "%.15s", line + 6);
        return true;
    }
    if (sscanf(line, "progress %lld %lld %lf %lf", &step, &iters, &ips, &loss) == 4) {
        if (!r->step) r->begin_step = step;
        r->step = step, r->iters = iters, r->images_per_s = ips, r->loss = loss;
        return true;
    }
    if (sscanf(line, "eval %d %d", &done, &total) == 2) {
        r->eval_done = done, r->eval_total = total;
        return true;
    }
    return false;
}

/* Time left from the pace of this process. */
static double eta(const struct progress_run *r)
{
    double steps = (double)(r->step - r->begin_step), left = (double)(r->iters - r->step);
    if (steps <= 0) return -1;
    return (double)(now_ms() - r->began_ms) * 1e-3 * left / steps;
}

static void run_line(const struct progress_run *r, char *buf, size_t n)
{
    char left[NUM_TEXT];
    if (!strcmp(r->phase, "train") && r->iters) {
        double s = eta(r);
        snprintf(buf, n, "%-28s %.8s  step %lld/%lld  %.0f images/s  loss %.4g  %s%s", r->label, r->id,
                 (long long)r->step, (long long)r->iters, r->images_per_s, r->loss, s < 0 ? "" : "left ",
                 s < 0 ? "" : human_seconds(left, s));
    } else if (!strcmp(r->phase, "eval")) {
        snprintf(buf, n, "%-28s %.8s  evaluating %d/%d", r->label, r->id, r->eval_done, r->eval_total);
    } else {
        snprintf(buf, n, "%-28s %.8s  %s", r->label, r->id, *r->phase ? r->phase : "start");
    }
}

static void erase(struct progress *p)
{
    if (p->lines) fprintf(stderr, "\r\033[%dA\033[J", p->lines);
    p->lines = 0;
}

static void draw_live(struct progress *p, struct progress_run *const *runs, int n, const struct progress_total *t)
{
    char line[512], spent[NUM_TEXT], left[NUM_TEXT];
    int width = print_width(STDERR_FILENO);
    double seconds = (double)(now_ms() - p->began_ms) * 1e-3, won = t->share - p->first_share;
    erase(p);
    for (int i = 0; i < n; i++) {
        run_line(runs[i], line, sizeof line);
        fprintf(stderr, "  %.*s\n", width > 3 ? width - 3 : 77, line);
        p->lines++;
    }
    fprintf(stderr, "%s%d of %d done", p->color ? "\033[1m" : "", t->done, t->jobs);
    if (t->bad) fprintf(stderr, ", %d not", t->bad);
    fprintf(stderr, ", %s", human_seconds(spent, seconds));
    if (won > 0.01 && t->share < 1 && !t->stopping)
        fprintf(stderr, ", about %s left", human_seconds(left, seconds * (1 - t->share) / won));
    fprintf(stderr, "%s%s\n", t->stopping ? ", stopping (again: kill)" : "", p->color ? "\033[0m" : "");
    p->lines++;
    fflush(stderr);
}

void progress_draw(struct progress *p, struct progress_run *const *runs, int n, const struct progress_total *t)
{
    int64_t now = now_ms();
    if (p->quiet) return;
    if (p->first_share < 0) p->first_share = t->share;
    if (p->live) {
        if (now - p->drawn_ms < DRAW_MS) return;
        p->drawn_ms = now;
        draw_live(p, runs, n, t);
        return;
    }
    for (int i = 0; i < n; i++) {
        char line[512];
        if (now - runs[i]->told_ms < PLAIN_MS) continue;
        runs[i]->told_ms = now;
        run_line(runs[i], line, sizeof line);
        fprintf(stderr, "%s\n", line);
    }
}

void progress_say(struct progress *p, const char *fmt, ...)
{
    va_list ap;
    if (p->quiet) return;
    erase(p);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    p->drawn_ms = 0;
}

void progress_end(struct progress *p)
{
    if (p->live) erase(p);
    fflush(stderr);
}
