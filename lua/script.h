/* script: a sweep script in, cells out. Runs Lua 5.4 in a sandbox (no os, io, debug, load of binaries; seeded random; memory and
 * instruction limits), with the library lua/ect/ (design, recipes, sweep) embedded in the program.
 *
 * A script declares sweeps and runs; nothing is executed. The result is a list of sweeps, each a list of cells in a fixed
 * order; a cell is a spec (core/spec.h) with labels, a parent cell where it starts from another run's weights, and the Lua functions
 * that its design settings name. Errors carry file and line, and a traceback for errors inside functions. */
#ifndef LUA_SCRIPT_H
#define LUA_SCRIPT_H

#include "core/base.h"
#include "core/design.h"
#include "core/spec.h"

struct script;

/* What a script may ask of the program while it runs; any may be NULL. */
struct script_host {
    void *ctx;
    /* c.predicted in where(): fills cost numbers for a spec. */
    err_t (*predict)(void *ctx, const struct spec *s, double *flops_total, double *flops_executed, double *params);
    /* d = elements of an image of a data set (for c_rule), rms = measured sigma_data */
    err_t (*data_info)(void *ctx, const char *name, int *d, double *rms);
    /* init = NAME, a file by path or by the name of weights: where it is (mem_free) and the hash of its contents */
    err_t (*init_file)(void *ctx, const char *name, char **path, char sha[SHA256_TEXT]);
    int64_t max_steps; /* VM instructions of a script; 0: 1e9 */
    size_t max_bytes;  /* held by Lua; 0: 1 GiB */
};

struct script_cell {
    const char *sweep, *cell; /* sweep name; label: "base", "mapping=const", "pretrain" */
    const char *factors;      /* JSON object of factor labels */
    int ordinal;              /* within the sweep */
    int parent; /* index of the parent cell in the script (replicate k starts from replicate k of it), or -1 */
    const char *parent_weights; /* which weights of the parent: "raw" or an EMA */
    const char *init_path;      /* the file of an init that is no parent, or NULL */
    int replicates;             /* numbered 1..replicates */
    struct spec spec;         /* TRAIN and EXEC settings; init already names the parent's config hash, or the file's */
    int nevals;               /* evaluation sets: eval = {...} or eval = {{...}, {...}} */
    const struct spec *evals; /* of which only the EVAL settings matter */
    char hash[SHA256_TEXT];   /* spec_hash */
    const char *fingerprints; /* text: one line per design function, "key id values..." on the fixed grid */
};
struct script_sweep {
    const char *name;
    int64_t seed;
    int first, ncells;    /* cells [first, first + ncells) belong to it (ect.run: one cell) */
    const char *declared; /* JSON: {"tables":[...],"pareto":[...],"factors":{...},"base":"base"} for reports */
};

/* path names the script in messages; text is its source (NULL: read path). sets: "key=value" overrides from the command line: they
 * apply to every cell's base unless prefixed "SWEEP:"; unknown keys are ERR_USAGE. Profile-like script parameters come through
 * ect.arg("name", default) and are set by the same --set. */
err_t script_open(struct script **s, const char *path, const char *text, const char *const *sets, int nsets,
                  const struct script_host *host) MUST_USE;
void script_close(struct script *s);
int script_nsweeps(const struct script *s);
const struct script_sweep *script_sweep_at(const struct script *s, int i);
int script_ncells(const struct script *s);
const struct script_cell *script_cell_at(const struct script *s, int i);
int script_find_cell(const struct script *s, const char *config_hash); /* -1 */
const char *script_source(const struct script *s);                     /* text, for the ledger */

/* Binds the design functions of a cell. *out stays valid while s is open. Calls into Lua allocate nothing after the first. */
err_t script_design(struct script *s, int cell, struct design *out) MUST_USE;
/* For each EMA of a cell: how much of the starting weights is left at the end of the run (product of its betas). Above 0.01 a short tune is
 * still judged by where it began: worth a warning. */
err_t script_ema_memory(struct script *s, int cell, double memory[DESIGN_EMAS]) MUST_USE;
/* A design function by expression, outside any sweep: "ect.mapping.sigmoid{k=8,b=1}". For checks and the golden vectors.
 * Evaluates f(args..., s) -> results. ect.noise.lognormal_z takes a normal z in place of u; ect.ema.gamma takes std. */
err_t script_call(struct script *s, const char *expr, const struct design_state *st, const double *args, int nargs,
                  double *out, int nout) MUST_USE;
/* One run without a sweep: recipe name plus sets. */
err_t script_recipe(struct script **s, const char *recipe, const char *const *sets, int nsets,
                    const struct script_host *host) MUST_USE;
const char *script_library(void); /* "Lua 5.4.4", for doctor and provenance */
/* Names of the embedded recipes, for help. */
int script_recipes(const char *const **names);

#endif
