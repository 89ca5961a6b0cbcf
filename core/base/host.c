/* The door to clock and host, and the embedded files. Tests replace the functions of `host`; nothing else asks the
 * system. */
#include "core/base.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int64_t mono_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static char host_name[256], host_boot[64];
static pthread_once_t host_once = PTHREAD_ONCE_INIT;

static void host_read(void)
{
    if (gethostname(host_name, sizeof host_name - 1)) strcpy(host_name, "localhost");
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, host_boot, sizeof host_boot - 1);
    if (fd >= 0) close(fd);
    host_boot[n > 0 ? n : 0] = 0;
    host_boot[strcspn(host_boot, "\n")] = 0;
}

static const char *hostname(void)
{
    pthread_once(&host_once, host_read);
    return host_name;
}

static const char *boot_id(void)
{
    pthread_once(&host_once, host_read);
    return host_boot;
}

static long fs_type(const char *path)
{
    struct statfs s;
    return statfs(path, &s) ? 0 : (long)s.f_type;
}

struct host host = {now_ms, mono_ns, hostname, boot_id, fs_type};

const struct embed *embed_find(const char *name)
{
    for (const struct embed *e = embed_files; e->name; e++)
        if (!strcmp(e->name, name)) return e;
    return NULL;
}
