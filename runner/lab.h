/* lab: what every part of the program works with: an open ledger, the data sets in use, and the answers a script may ask for. */
#ifndef RUNNER_LAB_H
#define RUNNER_LAB_H

#include "core/io/dataset.h"
#include "db/ledger.h"
#include "lua/script.h"

enum { LAB_DATA = 8 };
struct lab {
    struct ledger *ledger; /* NULL: a dry run without one */
    struct dataset *data[LAB_DATA];
    int ndata;
    bool shapes;              /* a dry run: of a published data set that is not here its shape will do */
    struct text data_missing; /* what to do about those, a warning a line */
    struct script_host host;  /* for script_open; ctx is this lab, which must not move */
};
void lab_init(struct lab *b, struct ledger *ledger);
void lab_done(struct lab *b);                                                 /* closes the ledger too */
err_t lab_data(struct lab *b, const char *name, struct dataset **d) MUST_USE; /* opened once, owned by the lab */
/* The same for a run that exists: ERR_FAILED where it was trained on other contents under that name. */
err_t lab_data_of_run(struct lab *b, const char *name, const char *run_id, struct dataset **d) MUST_USE;

#endif
