/* json: every block with full precision, and for every number the runs behind it and their values. */
#include "reports/block.h"

#include <math.h>

static void put_member(struct text *o, const char *key, const char *value)
{
    if (!value) return;
    text_addf(o, ", \"%s\": ", key);
    json_put_string(o, value);
}

static void put_numbers(struct text *o, const char *key, const double *v, int n)
{
    if (!v) return;
    text_addf(o, ", \"%s\": [", key);
    for (int i = 0; i < n; i++) {
        if (i) text_add(o, ", ");
        json_put_number(o, v[i]);
    }
    text_add(o, "]");
}

static void put_cell(struct text *o, const struct rtable *t, const struct rcell *c)
{
    static const char *const kinds[] = {"empty", "text", "number", "missing", "refused"};
    text_addf(o, "{\"kind\": \"%s\"", kinds[c->kind]);
    if (c->kind == RC_TEXT) put_member(o, "text", c->text);
    if (c->kind == RC_MISSING) put_member(o, "command", c->text);
    if (c->kind == RC_NUM) {
        text_add(o, ", \"mean\": ");
        json_put_number(o, c->mean);
    }
    if (cell_has_interval(c)) {
        text_add(o, ", \"lo\": ");
        json_put_number(o, c->lo);
        text_add(o, ", \"hi\": ");
        json_put_number(o, c->hi);
        put_member(o, "vs", t->vs);
    }
    if (c->of) text_addf(o, ", \"n\": %d, \"of\": %d", c->n, c->of);
    if (c->bold) text_add(o, ", \"bold\": true");
    if (c->span > 1) text_addf(o, ", \"span\": %d", c->span);
    if (c->note > 0 && c->note <= t->nnotes) put_member(o, "note", t->notes[c->note - 1]);
    if (c->nruns) {
        text_add(o, ", \"runs\": [");
        for (int i = 0; i < c->nruns; i++) {
            text_addf(o, "%s{\"run\": ", i ? ", " : "");
            json_put_string(o, c->runs[i]);
            if (c->values) {
                text_add(o, ", \"value\": ");
                json_put_number(o, c->values[i]);
            }
            text_add(o, "}");
        }
        text_add(o, "]");
    }
    text_add(o, "}");
}

static void put_table(struct text *o, const struct rtable *t)
{
    put_member(o, "id", t->id);
    put_member(o, "vs", t->vs);
    text_add(o, ",\n   \"columns\": [");
    for (int j = 0; j < t->ncols; j++) {
        text_addf(o, "%s{\"key\": ", j ? ", " : "");
        json_put_string(o, t->cols[j].key);
        put_member(o, "head", t->cols[j].head);
        text_add(o, "}");
    }
    text_add(o, "],\n   \"groups\": [");
    for (int g = 0; g < t->ngroups; g++) {
        text_addf(o, "%s\n    {\"label\": ", g ? "," : "");
        json_put_string(o, t->groups[g].label);
        text_add(o, ", \"rows\": [");
        for (int i = 0; i < t->groups[g].nrows; i++) {
            const struct rrow *row = &t->groups[g].rows[i];
            text_addf(o, "%s\n     {\"id\": ", i ? "," : "");
            json_put_string(o, row->id);
            text_add(o, ", \"cells\": [");
            for (int j = 0; j < t->ncols; j++) {
                text_addf(o, "%s\n      ", j ? "," : "");
                put_cell(o, t, &row->cells[j]);
            }
            text_add(o, "]}");
        }
        text_add(o, "]}");
    }
    text_add(o, "],\n   \"notes\": [");
    for (int i = 0; i < t->nnotes; i++) {
        if (i) text_add(o, ", ");
        json_put_string(o, t->notes[i]);
    }
    text_add(o, "]");
}

static void put_axis(struct text *o, const char *name, const struct raxis *a)
{
    text_addf(o, ", \"%s\": {\"label\": ", name);
    json_put_string(o, a->label);
    text_addf(o, ", \"log\": %s}", a->log ? "true" : "false");
}

static void put_figure(struct text *o, const struct rfigure *f)
{
    put_member(o, "id", f->id);
    put_axis(o, "x_axis", &f->x);
    put_axis(o, "y_axis", &f->y);
    text_add(o, ",\n   \"series\": [");
    for (int i = 0; i < f->nseries; i++) {
        const struct rseries *s = &f->series[i];
        text_addf(o, "%s\n    {\"label\": ", i ? "," : "");
        json_put_string(o, s->label);
        put_member(o, "runs", s->runs);
        put_numbers(o, "x", s->x, s->n);
        put_numbers(o, "y", s->y, s->n);
        put_numbers(o, "lo", s->lo, s->n);
        put_numbers(o, "hi", s->hi, s->n);
        text_add(o, "}");
    }
    text_add(o, "]");
}

static void put_facts(struct text *o, const struct block *b)
{
    text_add(o, ", \"facts\": [");
    for (int i = 0; i < b->n; i++) {
        text_add(o, i ? ", [" : "[");
        json_put_string(o, b->facts[i].key);
        text_add(o, ", ");
        json_put_string(o, b->facts[i].value);
        text_add(o, "]");
    }
    text_add(o, "]");
}

static void put_images(struct text *o, const struct block *b)
{
    text_add(o, ", \"images\": [");
    for (int i = 0; i < b->n; i++) {
        text_addf(o, "%s{\"caption\": ", i ? ", " : "");
        json_put_string(o, b->images[i].caption);
        put_member(o, "role", b->images[i].role);
        put_member(o, "run", b->images[i].run);
        put_member(o, "sha", b->images[i].sha);
        text_add(o, "}");
    }
    text_add(o, "]");
}

void report_json(const struct report *r, struct text *o)
{
    static const char *const kinds[] = {"section", "text", "facts", "table", "figure", "images", "code"};
    text_add(o, "{\"report\": ");
    json_put_string(o, r->opts->name ? r->opts->name : "sweep");
    put_member(o, "title", r->title);
    text_add(o, ", \"blocks\": [");
    for (const struct block *b = r->first; b; b = b->next) {
        text_addf(o, "%s\n  {\"block\": \"%s\"", b == r->first ? "" : ",", kinds[b->kind]);
        put_member(o, "title", b->title);
        put_member(o, "text", b->text);
        if (b->kind == BLOCK_TABLE) put_table(o, &b->table);
        else if (b->kind == BLOCK_FIGURE) put_figure(o, &b->figure);
        else if (b->kind == BLOCK_FACTS) put_facts(o, b);
        else if (b->kind == BLOCK_IMAGES) put_images(o, b);
        text_add(o, "}");
    }
    text_add(o, "]}\n");
}
