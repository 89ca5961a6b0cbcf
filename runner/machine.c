#include "runner/machine.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runner/runner.h"

int machine_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

/* The value of the first line "KEY\t: VALUE" of /proc/cpuinfo, or "". Another system has another file: then unknown. */
static void cpuinfo(const char *key, char *buf, size_t n)
{
    char line[8192];
    FILE *f = fopen("/proc/cpuinfo", "r");
    snprintf(buf, n, "%s", "");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, key, strlen(key))) continue;
        char *v = strchr(line, ':');
        if (!v) continue;
        v += 1 + strspn(v + 1, " ");
        v[strcspn(v, "\n")] = 0;
        snprintf(buf, n, "%s", v);
        break;
    }
    if (f) fclose(f);
}

void machine_cpu(char *buf, size_t n)
{
    cpuinfo("model name", buf, n);
    if (!*buf) snprintf(buf, n, "unknown");
}

void machine_isa(char *buf, size_t n)
{
    static const char *const known[] = {"sse4_2",      "avx",         "avx2",     "fma",   "avx512f", "avx512bw",
                                        "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "sve"};
    char flags[8192];
    cpuinfo("flags", flags, sizeof flags);
    if (!*flags) cpuinfo("Features", flags, sizeof flags);
    struct text t = {0};
    char *save = NULL;
    for (char *w = strtok_r(flags, " ", &save); w; w = strtok_r(NULL, " ", &save))
        for (size_t i = 0; i < ARRAY_LEN(known); i++)
            if (!strcmp(w, known[i])) text_addf(&t, "%s%s", t.len ? " " : "", w);
    snprintf(buf, n, "%s", t.len ? text_str(&t) : "unknown");
    text_done(&t);
}

bool machine_program(const char *name, char *path, size_t n)
{
    const char *dirs = getenv("PATH");
    for (const char *p = dirs ? dirs : "/usr/bin:/bin"; *p;) {
        size_t len = strcspn(p, ":");
        snprintf(path, n, "%.*s/%s", (int)len, p, name);
        if (access(path, X_OK) == 0) return true;
        p += len + (p[len] == ':');
    }
    return false;
}

void git_state_of(const char *dir, struct git_state *g)
{
    static const char *const rev[] = {"git", "rev-parse", "HEAD", NULL};
    static const char *const diff[] = {"git",  "-c", "core.fsmonitor=false", "diff", "--no-ext-diff", "--no-textconv",
                                       "HEAD", NULL};
    struct text t = {0};
    int status;
    *g = (struct git_state){.revision = ""};
    child_capture(dir, rev, 256, &t, &status);
    if (status == 0) {
        snprintf(g->revision, sizeof g->revision, "%.*s", (int)strcspn(text_str(&t), "\n"), text_str(&t));
        text_done(&t);
        t = (struct text){0};
        child_capture(dir, diff, 64u << 20, &t, &status);
        if (status == 0 && t.len) sha256_text(t.s, t.len, g->diff_sha);
    }
    text_done(&t);
}
