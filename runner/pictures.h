/* pictures: 64 images in a grid, for people. Replicate 1 of a cell gets them after its evaluations, as PNG blobs under roles that name
 * what is shown: grid:data, grid:ect@1, grid:heun35, and grid:nearest@1 (the training images nearest to those of grid:ect@1). */
#ifndef RUNNER_PICTURES_H
#define RUNNER_PICTURES_H

#include "runner/evals.h"

enum { PICTURE_IMAGES = 64, PICTURE_COLS = 8, PICTURE_GAP = 2 };
bool pictures_missing(struct ledger *l, const char *run_id, const struct script_cell *c);
err_t pictures_run(struct lab *b, struct sampling *s, const char *run_id, const char *ckpt_dir,
                   const struct script_cell *c) MUST_USE;
/* A grid of n images [h, w, c] as a PNG in memory (mem_free). */
/* The same of points in the plane: a scatter plot. */
err_t picture_points_png(const double *x, int n, void **png, size_t *size) MUST_USE;
err_t picture_png(const uint8_t *px, int n, int h, int w, int c, void **png, size_t *size) MUST_USE;

#endif
