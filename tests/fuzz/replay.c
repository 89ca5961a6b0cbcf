/* main of a fuzz target without libFuzzer: replay [--mutations N] FILE|DIR... runs each file and N mutations of it, always the same ones. */
#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>

#include "tests/fuzz/fuzz.h"

static int mutations = 20;
static long runs;

static uint32_t draw(uint32_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 17;
    *s ^= *s << 5;
    return *s;
}

/* Exactly sized memory, so that a sanitizer sees the first byte too many. */
static void run(const char *data, size_t n)
{
    uint8_t *copy = malloc(n ? n : 1);
    if (n) memcpy(copy, data, n);
    LLVMFuzzerTestOneInput(copy, n);
    free(copy);
    runs++;
}

static void mutate(char *data, size_t *n, uint32_t *s)
{
    for (uint32_t k = 1 + draw(s) % 4; k > 0 && *n; k--) {
        size_t at = draw(s) % *n, len = 1 + draw(s) % 8;
        if (len > *n - at) len = *n - at;
        switch (draw(s) % 5) {
        case 0: data[at] ^= (char)(1 << draw(s) % 8); break;
        case 1: data[at] = (char)draw(s); break;
        case 2: memset(data + at, draw(s) % 2 ? 0xff : 0, len); break;
        case 3:
            memmove(data + at, data + at + len, *n - at - len);
            *n -= len;
            break;
        default: memmove(data + at, data + draw(s) % (*n - len + 1), len); break;
        }
    }
}

static void file(const char *path)
{
    char *data, *copy;
    size_t n, m;
    uint32_t s = 1;
    if (file_read(path, 1 << 20, &data, &n)) return; /* too large to be a seed */
    run(data, n);
    copy = mem_alloc(n + 1);
    for (int i = 0; i < mutations; i++) {
        memcpy(copy, data, m = n);
        mutate(copy, &m, &s);
        run(copy, m);
    }
    mem_free(copy);
    mem_free(data);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        struct stat st;
        if (!strcmp(argv[i], "--mutations") && i + 1 < argc) mutations = atoi(argv[++i]);
        else if (stat(argv[i], &st)) continue;
        else if (!S_ISDIR(st.st_mode)) file(argv[i]);
        else {
            DIR *d = opendir(argv[i]);
            for (struct dirent *e; d && (e = readdir(d));) {
                char *path = mem_printf("%s/%s", argv[i], e->d_name);
                if (e->d_name[0] != '.') file(path);
                mem_free(path);
            }
            if (d) closedir(d);
        }
    }
    printf("%ld inputs\n", runs);
    return runs == 0;
}
