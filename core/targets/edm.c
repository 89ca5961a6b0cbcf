/* Denoising (Karras et al. 2022, eq. 8): L = w(t) ||D(y + t eps, t) - y||^2, summed over the elements of an image. The recipe's weight is
 * lambda(t) = 1/t^2 + 1/sigma_d^2 = (t^2 + sigma_d^2) / (t sigma_d)^2. */
#include "core/target.h"

static err_t step(struct pass *p)
{
    int n = pass_batch(p);
    const double *w = pass_w(p);
    double *loss = pass_loss_out(p), *g = pass_factor_out(p);
    pass_student(p);
    pass_teacher_is_data(p);
    const double *s = pass_sqdist(p);
    for (int i = 0; i < n; i++) {
        loss[i] = w[i] * s[i];
        g[i] = 2 * w[i];
    }
    pass_gradient(p);
    return ERR_OK;
}

extern const struct target target_edm;
const struct target target_edm = {
    .name = "edm", .help = "denoise: D(y + t eps, t) towards y", .nominal_forwards = 3, .step = step};
