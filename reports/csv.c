/* csv: every number of every table, one line each, in full precision: the long form that other programs read without guessing. */
#include "reports/block.h"

#include <math.h>

static void put_number(struct text *o, double v)
{
    char b[NUM_TEXT];
    if (!isnan(v)) text_add(o, num_text(b, v));
}

static void put_cell(struct text *o, const struct rtable *t, const struct rgroup *g, const struct rrow *row, int j)
{
    const struct rcell *c = &row->cells[j];
    csv_put(o, t->id);
    text_add(o, ",");
    csv_put(o, g->label);
    text_add(o, ",");
    csv_put(o, row->cells[0].kind == RC_TEXT ? row->cells[0].text : row->id);
    text_add(o, ",");
    csv_put(o, t->cols[j].key);
    text_add(o, ",");
    csv_put(o, c->kind == RC_TEXT      ? c->text
               : c->kind == RC_MISSING ? "missing"
               : c->kind == RC_REFUSED ? "refused"
                                       : "value");
    text_addf(o, ",%d,%d,", c->n, c->of);
    if (c->kind == RC_NUM && isnan(c->mean)) text_add(o, "nan");
    else put_number(o, c->mean);
    text_add(o, ",");
    put_number(o, c->lo);
    text_add(o, ",");
    put_number(o, c->hi);
    text_add(o, ",");
    csv_put(o, cell_has_interval(c) ? t->vs : NULL);
    text_addf(o, ",%d,", c->bold);
    csv_put(o, c->note > 0 && c->note <= t->nnotes ? t->notes[c->note - 1] : NULL);
    text_add(o, ",");
    for (int k = 0; k < c->nruns; k++) text_addf(o, "%s%s", k ? " " : "", c->runs[k]);
    text_add(o, "\n");
}

void report_csv(const struct report *r, struct text *o)
{
    text_add(o, "table,group,row,column,what,n,of,mean,lo,hi,vs,bold,note,runs\n");
    for (const struct block *b = r->first; b; b = b->next) {
        if (b->kind != BLOCK_TABLE) continue;
        for (int g = 0; g < b->table.ngroups; g++)
            for (int i = 0; i < b->table.groups[g].nrows; i++)
                for (int j = 1; j < b->table.ncols; j++)
                    if (b->table.groups[g].rows[i].cells[j].kind != RC_EMPTY)
                        put_cell(o, &b->table, &b->table.groups[g], &b->table.groups[g].rows[i], j);
    }
}
