/* open: how a ledger is opened, locked and migrated. The invariant: nobody writes, creates, migrates or checkpoints
 * without the flock on FILE-lock. It is fair (the kernel wakes waiters about in order, where SQLite's own busy handler
 * starves some), the kernel drops it when its holder dies, and it keeps checkpoints and writers apart, which SQLite
 * before 3.51.3 needs. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "db/curve.h"
#include "db/db.h"

enum { BUSY_MS = 60000, CHECKPOINT_FRAMES = 1000, TRUNCATE_FRAMES = 16000 };

/* ---- the lock ---------------------------------------------------------------------------------------------------- */

static err_t lock_open(struct ledger *l)
{
    l->lock_fd = open(l->lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (l->lock_fd >= 0) return ERR_OK;
    int os = errno;
    return fail(ERR_IO, "ledger %s cannot be written: %s: %s: name a writable place with --ledger", l->path,
                l->lock_path, strerror(os));
}

/* The lock file may have been deleted while we waited: a lock on a file that nobody else can find is none. */
static bool lock_is_current(struct ledger *l)
{
    struct stat a, b;
    return !fstat(l->lock_fd, &a) && !stat(l->lock_path, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* A turnstile before the lock: one waiter stands in it until it has the lock, so whoever has just let go of the lock
 * cannot take it again past the others, which on a busy machine it otherwise would before they wake. An open-file lock
 * on a byte of the same file; only fairness depends on it, so a failure does not matter. */
static void turnstile(struct ledger *l, short type)
{
    struct flock f = {.l_type = type, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    while (fcntl(l->lock_fd, F_OFD_SETLKW, &f) && errno == EINTR) continue;
}

static int lock_wait(struct ledger *l)
{
    int r;
    turnstile(l, F_WRLCK);
    while ((r = flock(l->lock_fd, LOCK_EX)) && errno == EINTR) continue;
    int os = errno;
    turnstile(l, F_UNLCK);
    errno = os;
    return r;
}

err_t lock_take(struct ledger *l, bool wait, bool *got)
{
    *got = false;
    for (;;) {
        if (l->lock_fd < 0) TRY(lock_open(l));
        if (wait ? lock_wait(l) : flock(l->lock_fd, LOCK_EX | LOCK_NB)) {
            if (errno == EWOULDBLOCK || errno == EINTR) return ERR_OK;
            return fail(ERR_IO, "lock %s: %s", l->lock_path, strerror(errno));
        }
        if (lock_is_current(l)) break;
        close(l->lock_fd);
        l->lock_fd = -1;
    }
    *got = true;
    return ERR_OK;
}

void lock_drop(struct ledger *l)
{
    if (l->lock_fd >= 0) flock(l->lock_fd, LOCK_UN);
}

/* ---- what the path is -------------------------------------------------------------------------------------------- */

static const struct {
    uint32_t magic;
    const char *name;
} network[] = {
    {0x6969, "NFS"},        {0x517b, "SMB"},          {0xff534d42, "CIFS"},  {0xfe534d42, "SMB2"},
    {0x0bd00bd0, "Lustre"}, {0x47504653, "GPFS"},     {0x65735546, "FUSE"},  {0x19830326, "BeeGFS"},
    {0x00c36400, "Ceph"},   {0x5346414f, "AFS"},      {0x01021997, "9p"},    {0x7461636f, "OCFS2"},
    {0x01161970, "GFS2"},   {0x20030528, "OrangeFS"}, {0xaad7aaea, "PanFS"}, {0x73757245, "Coda"},
};

static char *dir_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash) return mem_strdup(".");
    if (slash == path) return mem_strdup("/");
    return mem_printf("%.*s", (int)(slash - path), path);
}

static err_t check_place(const char *path)
{
    char *dir = dir_of(path);
    uint32_t magic = (uint32_t)host.fs_type(dir);
    err_t err = ERR_OK;
    for (size_t i = 0; i < ARRAY_LEN(network) && !err; i++)
        if (magic == network[i].magic)
            err = fail(ERR_IO,
                       "ledger %s would lie on %s, a file system shared by hosts, where SQLite's shared memory and "
                       "locks do not "
                       "hold and records get lost: keep the ledger on a local disk (--ledger /local/disk/ect.db or "
                       "ECT_LEDGER), "
                       "and copy it over after the run",
                       path, network[i].name);
    mem_free(dir);
    return err;
}

/* Before SQLite touches it: is there a file, and does it begin like a database? size 0 is a file to be created. */
static err_t sniff(struct ledger *l, bool *fresh, bool *wal)
{
    struct stat st;
    *fresh = true;
    *wal = false;
    if (stat(l->path, &st)) {
        if (errno == ENOENT || errno == ENOTDIR) {
            if (l->mode == LEDGER_CREATE) return ERR_OK;
            return fail(ERR_NOT_FOUND, "no ledger at %s: `ect run` makes one; --ledger or ECT_LEDGER names another",
                        l->path);
        }
        return fail(ERR_IO, "ledger %s: %s", l->path, strerror(errno));
    }
    if (!S_ISREG(st.st_mode)) return fail(ERR_FORMAT, "%s is not a ledger: not a regular file", l->path);
    if (st.st_size == 0) {
        if (l->mode == LEDGER_CREATE) return ERR_OK;
        return fail(ERR_FORMAT, "%s is not a ledger: the file is empty", l->path);
    }
    *fresh = false;
    char head[20] = {0};
    int fd = open(l->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail(ERR_IO, "ledger %s: %s", l->path, strerror(errno));
    ssize_t n = pread(fd, head, sizeof head, 0);
    close(fd);
    if (n != (ssize_t)sizeof head || memcmp(head, "SQLite format 3", 16))
        return fail(ERR_FORMAT, "%s is not a ledger: not an SQLite file", l->path);
    *wal = head[19] == 2;
    return ERR_OK;
}

/* ---- the connection ---------------------------------------------------------------------------------------------- */

static int note_wal(void *ctx, sqlite3 *db, const char *name, int frames)
{
    (void)db;
    (void)name;
    ((struct ledger *)ctx)->wal_frames = frames;
    return SQLITE_OK;
}

err_t db_configure(struct ledger *l)
{
    sqlite3_extended_result_codes(l->db, 1);
    sqlite3_busy_timeout(l->db, BUSY_MS);
    sqlite3_db_config(l->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    sqlite3_db_config(l->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(l->db, SQLITE_DBCONFIG_DQS_DML, 0, NULL); /* "colum" is a misspelt name, not a text */
    sqlite3_db_config(l->db, SQLITE_DBCONFIG_DQS_DDL, 0, NULL);
    int rc = sqlite3_exec(l->db,
                          "PRAGMA wal_autocheckpoint = 0; PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL;"
                          "PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY",
                          NULL, NULL, NULL);
    if (!rc) rc = pareto_register(l->db);
    if (!rc) rc = curve_register(l->db);
    if (!rc) rc = functions_register(l->db);
    /* connects the table-valued functions now: later an authoriser may forbid it */
    if (!rc) rc = sqlite3_exec(l->db, "SELECT key FROM pareto('SELECT 1, 1')", NULL, NULL, NULL);
    if (!rc) rc = sqlite3_exec(l->db, "SELECT step FROM curve_points(x'', 0, 1)", NULL, NULL, NULL);
    if (rc) return db_fail(l, rc, "configure");
    l->durable = true;
    l->next_checkpoint = CHECKPOINT_FRAMES;
    sqlite3_wal_hook(l->db, note_wal, l); /* after wal_autocheckpoint, which sets the hook itself */
    return ERR_OK;
}

static int64_t newest_version(void)
{
    for (int64_t v = 1;; v++) {
        char name[32];
        snprintf(name, sizeof name, "db/%04d.sql", (int)v);
        if (!embed_find(name)) return v - 1;
    }
}

/* *version 0: an empty database. */
err_t db_check_version(struct ledger *l, int64_t *version)
{
    int64_t app = 0, things = 0;
    bool found;
    TRY(db_int(l, &app, &found, "PRAGMA application_id", ""));
    TRY(db_int(l, version, &found, "PRAGMA user_version", ""));
    TRY(db_int(l, &things, &found, "SELECT count(*) FROM sqlite_schema", ""));
    if (app == 0 && *version == 0 && things == 0 && l->mode == LEDGER_CREATE) return ERR_OK;
    if (app != APPLICATION_ID || *version < 1)
        return fail(ERR_FORMAT, "%s is not a ledger: an SQLite database of something else", l->path);
    int64_t newest = newest_version();
    if (*version > newest)
        return fail(ERR_NEWER,
                    "ledger %s was written by a newer ect (schema %lld, this one knows %lld): use the newer program",
                    l->path, (long long)*version, (long long)newest);
    if (*version < newest && l->mode == LEDGER_READ)
        return fail(ERR_FORMAT,
                    "ledger %s has schema %lld, older than %lld: `ect run` or `ect eval` on it brings it up to date",
                    l->path, (long long)*version, (long long)newest);
    return ERR_OK;
}

/* FILE.schema-N, complete or not there. One that is there is of an earlier attempt, from the same rows. */
static err_t keep_old(struct ledger *l, int64_t version)
{
    char *copy = mem_printf("%s.schema-%lld", l->path, (long long)version), *tmp = mem_printf("%s.tmp", copy);
    err_t err = ERR_OK;
    if (!file_exists(copy)) {
        unlink(tmp);
        err = db_run(l, "VACUUM INTO ?", "s", tmp);
        if (!err && rename(tmp, copy)) err = fail(ERR_IO, "%s: %s", copy, strerror(errno));
        if (err) unlink(tmp);
        else
            log_info("ledger %s: schema %lld becomes %lld; the old file is kept as %s", l->path, (long long)version,
                     (long long)newest_version(), copy);
    }
    mem_free(copy);
    mem_free(tmp);
    return err;
}

err_t db_migrate(struct ledger *l)
{
    int64_t version, newest = newest_version();
    TRY(db_check_version(l, &version));
    if (version == newest) return ERR_OK;
    if (version) TRY(keep_old(l, version));
    int rc = sqlite3_exec(l->db, "BEGIN EXCLUSIVE", NULL, NULL, NULL);
    if (rc) return db_fail(l, rc, "migrate");
    err_t err = db_check_version(l, &version); /* again, now that nobody can move it */
    for (; !err && version < newest; version++) {
        char name[32], set[64];
        snprintf(name, sizeof name, "db/%04d.sql", (int)version + 1);
        snprintf(set, sizeof set, "PRAGMA user_version = %d", (int)version + 1);
        rc = sqlite3_exec(l->db, embed_find(name)->data, NULL, NULL, NULL);
        if (!rc) rc = sqlite3_exec(l->db, set, NULL, NULL, NULL);
        if (rc) err = db_fail(l, rc, name);
    }
    if (!err && (rc = sqlite3_exec(l->db, "COMMIT", NULL, NULL, NULL))) err = db_fail(l, rc, "migrate");
    if (err) sqlite3_exec(l->db, "ROLLBACK", NULL, NULL, NULL);
    return err;
}

static err_t to_wal(struct ledger *l)
{
    char *mode;
    TRY(db_str(l, &mode, "PRAGMA journal_mode = WAL", ""));
    bool ok = mode && !strcmp(mode, "wal");
    err_t err =
        ok ? ERR_OK
           : fail(ERR_IO, "ledger %s: no write-ahead log here (journal mode stays %s)", l->path, mode ? mode : "?");
    mem_free(mode);
    return err;
}

static err_t open_write(struct ledger *l)
{
    bool got, fresh, wal;
    struct stat st;
    if (l->mode == LEDGER_CREATE) {
        char *dir = dir_of(l->path);
        err_t err = dir_make(dir);
        mem_free(dir);
        if (err) return fail_in(err, "ledger %s cannot be written", l->path);
    }
    if (!file_exists(l->lock_path)) TRY(sniff(l, &fresh, &wal)); /* leaves no lock file beside what is not ours */
    TRY(check_place(l->path));
    TRY(lock_take(l, true, &got));
    TRY(sniff(l, &fresh, &wal));
    int rc = sqlite3_open_v2(
        l->path, &l->db,
        SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | (l->mode == LEDGER_CREATE ? SQLITE_OPEN_CREATE : 0), NULL);
    if (rc) return db_fail(l, rc, "open");
    TRY(db_configure(l));
    TRY(db_migrate(l));
    TRY(to_wal(l));
    if (stat(l->path, &st)) return fail(ERR_IO, "ledger %s: %s", l->path, strerror(errno));
    l->dev = st.st_dev;
    l->ino = st.st_ino;
    lock_drop(l);
    return ERR_OK;
}

/* A ledger on a read-only medium: SQLite cannot make the shared memory that a WAL database needs. If no write-ahead log
 * is left beside it, the file is complete and can be read as a constant. */
static bool is_constant(const char *path)
{
    char *dir = dir_of(path), *wal = mem_printf("%s-wal", path);
    struct stat st;
    bool yes = access(dir, W_OK) && (stat(wal, &st) || st.st_size == 0);
    mem_free(dir);
    mem_free(wal);
    return yes;
}

static char *constant_uri(const char *path)
{
    struct text t = {0};
    text_add(&t, "file:");
    for (const char *p = path; *p; p++)
        if (strchr("%?#", *p)) text_addf(&t, "%%%02x", (unsigned char)*p);
        else text_addn(&t, p, 1);
    text_add(&t, "?immutable=1");
    return t.s;
}

static err_t open_read(struct ledger *l)
{
    bool fresh, wal, got;
    struct stat st;
    int64_t version;
    if (!stat(l->path, &st) && st.st_size == 0 && file_exists(l->lock_path)) { /* somebody may just be creating it */
        TRY(lock_take(l, true, &got));
        lock_drop(l);
    }
    TRY(sniff(l, &fresh, &wal));
    bool constant = is_constant(l->path);
    if (wal && !constant) TRY(check_place(l->path));
    char *uri = constant ? constant_uri(l->path) : mem_strdup(l->path);
    int rc = sqlite3_open_v2(uri, &l->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | (constant ? SQLITE_OPEN_URI : 0),
                             NULL);
    mem_free(uri);
    if (rc) return db_fail(l, rc, "open");
    TRY(db_configure(l));
    return db_check_version(l, &version);
}

err_t ledger_open(struct ledger **out, const char *path, enum ledger_mode mode)
{
    struct ledger *l = mem_alloc(sizeof *l);
    l->path = mem_strdup(path);
    l->lock_path = mem_printf("%s-lock", path);
    l->lock_fd = -1;
    l->mode = mode;
    err_t err = mode == LEDGER_READ ? open_read(l) : open_write(l);
    if (err) {
        ledger_close(l);
        l = NULL;
    }
    *out = l;
    return err;
}

/* The last writer to leave folds the log into the file, under the lock, so that a finished ledger is one file. (SQLite
 * does not if the file was deleted or replaced: the log of the other one lies under the same name.) */
void ledger_close(struct ledger *l)
{
    if (!l) return;
    bool got = false;
    if (l->in_tx) ledger_rollback(l);
    db_forget(l);
    if (l->ino && lock_take(l, false, &got)) log_warn("%s", err_text());
    if (got) {
        sqlite3_busy_timeout(l->db, 0);
        sqlite3_db_config(l->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
    }
    sqlite3_close_v2(l->db);
    if (l->lock_fd >= 0) close(l->lock_fd);
    mem_free(l->locks);
    mem_free(l->path);
    mem_free(l->lock_path);
    mem_free(l);
}

const char *ledger_path(const struct ledger *l)
{
    return l->path;
}
const char *ledger_library(void)
{
    return sqlite3_libversion();
}

char *ledger_run_dir(const struct ledger *l, const char *run_id)
{
    size_t n = strlen(l->path);
    if (n > 3 && !strcmp(l->path + n - 3, ".db")) n -= 3;
    return mem_printf("%.*s.runs/%s", (int)n, l->path, run_id);
}

/* ---- transactions ------------------------------------------------------------------------------------------------ */

/* A deleted file would take our records and show them to nobody. */
static err_t still_there(struct ledger *l)
{
    struct stat st;
    if (!stat(l->path, &st) && st.st_dev == l->dev && st.st_ino == l->ino) return ERR_OK;
    return fail(ERR_IO, "ledger %s was deleted or replaced while in use: nothing more can be recorded in it", l->path);
}

static err_t tx_begin(struct ledger *l, bool durable)
{
    bool got;
    int rc = SQLITE_OK;
    if (l->mode == LEDGER_READ) return fail(ERR_FAILED, "ledger %s is open for reading only", l->path);
    TRY(lock_take(l, true, &got));
    err_t err = still_there(l);
    if (!err && durable != l->durable) {
        rc = sqlite3_exec(l->db, durable ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL", NULL, NULL,
                          NULL);
        l->durable = durable;
    }
    if (!err && !rc) rc = sqlite3_exec(l->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    if (!err && rc) err = db_fail(l, rc, "begin");
    if (err) lock_drop(l);
    else l->in_tx = true;
    l->poisoned = false;
    return err;
}

/* Checkpoints whenever the log has grown by another CHECKPOINT_FRAMES (4 MB), so a long reader costs no checkpoint per
 * commit. */
static void keep_wal_short(struct ledger *l)
{
    if (l->wal_frames < CHECKPOINT_FRAMES) l->next_checkpoint = CHECKPOINT_FRAMES;
    if (l->wal_frames < l->next_checkpoint) return;
    l->next_checkpoint = l->wal_frames + CHECKPOINT_FRAMES;
    bool cut = l->wal_frames >= TRUNCATE_FRAMES;
    if (cut) sqlite3_busy_timeout(l->db, 100);
    int rc = sqlite3_wal_checkpoint_v2(l->db, NULL, cut ? SQLITE_CHECKPOINT_TRUNCATE : SQLITE_CHECKPOINT_PASSIVE, NULL,
                                       NULL);
    if (cut) sqlite3_busy_timeout(l->db, BUSY_MS);
    if (rc && rc != SQLITE_BUSY) log_warn("ledger %s: checkpoint: %s", l->path, sqlite3_errmsg(l->db));
}

static void tx_rollback(struct ledger *l)
{
    if (!sqlite3_get_autocommit(l->db)) sqlite3_exec(l->db, "ROLLBACK", NULL, NULL, NULL);
    l->in_tx = l->poisoned = false;
    lock_drop(l);
}

static err_t tx_commit(struct ledger *l)
{
    err_t err = ERR_OK;
    if (l->poisoned)
        err =
            fail(ERR_FAILED, "ledger %s: an earlier write of this transaction failed: nothing of it is kept", l->path);
    if (!err) err = still_there(l);
    if (!err) {
        int rc = sqlite3_exec(l->db, "COMMIT", NULL, NULL, NULL);
        if (rc) err = db_fail(l, rc, "commit");
    }
    if (err) {
        tx_rollback(l);
        return err;
    }
    l->in_tx = false;
    keep_wal_short(l);
    lock_drop(l);
    return ERR_OK;
}

err_t ledger_begin(struct ledger *l)
{
    assert(!l->in_tx);
    return tx_begin(l, true);
}

err_t ledger_commit(struct ledger *l)
{
    assert(l->in_tx);
    return tx_commit(l);
}

void ledger_rollback(struct ledger *l)
{
    if (l->in_tx) tx_rollback(l);
}

err_t tx_enter(struct ledger *l, bool durable, bool *own)
{
    *own = !l->in_tx;
    return l->in_tx ? ERR_OK : tx_begin(l, durable);
}

err_t tx_leave(struct ledger *l, bool own, err_t err)
{
    if (!own) return err;
    if (!err) return tx_commit(l);
    tx_rollback(l);
    return err;
}
