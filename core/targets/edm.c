/* Denoising (Karras et al. 2022, eq. 8): L = w(t) ||D(y + t eps, t) - y||^2, summed over the elements of an image. The recipe's weight is
 * lambda(t) = 1/t^2 + 1/sigma_d^2 = (t^2 + sigma_d^2) / (t sigma_d)^2.
 *
 * Where the network has an uncertainty head u(t) (Karras et al. 2024, eq. 14 and appendix B): L = sum over elements of w e^-u (D - y)^2 + u,
 * as their code sums it, so dL/du = elements - w e^-u S. */
#include "core/target.h"

#include <math.h>

static err_t step(struct pass *p)
{
    int n = pass_batch(p), per = pass_elements(p);
    const double *w = pass_w(p);
    double *loss = pass_loss_out(p), *g = pass_factor_out(p), *du = pass_logvar_grad_out(p);
    pass_student(p);
    pass_teacher_is_data(p);
    const double *s = pass_sqdist(p), *u = pass_logvar(p);
    for (int i = 0; i < n; i++) {
        double certain = u ? w[i] * exp(-u[i]) : w[i];
        loss[i] = certain * s[i] + (u ? per * u[i] : 0);
        g[i] = 2 * certain;
        if (u) du[i] = per - certain * s[i];
    }
    pass_gradient(p);
    return ERR_OK;
}

extern const struct target target_edm;
const struct target target_edm = {
    .name = "edm", .help = "denoise: D(y + t eps, t) towards y", .logvar = true, .nominal_forwards = 3, .step = step};
