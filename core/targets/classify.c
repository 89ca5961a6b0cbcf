/* Classification, for feature extractors of one's own: L = -w ln p_y with p = softmax of the network's logits, on clean images. Noise levels
 * have no part in it. dL/dlogit_k = w (p_k - [k = y]). */
#include "core/target.h"

#include <math.h>

static err_t step(struct pass *p)
{
    int n = pass_batch(p), classes = pass_classes(p);
    const double *w = pass_w(p);
    pass_student_classes(p);
    const float *logits = pass_logits(p);
    const int *y = pass_class(p);
    double *loss = pass_loss_out(p);
    float *g = pass_logits_grad_out(p);
    for (int i = 0; i < n; i++) {
        const float *z = logits + (ptrdiff_t)i * classes;
        double top = (double)z[0];
        for (int k = 1; k < classes; k++) top = (double)z[k] > top ? (double)z[k] : top;
        double sum = exp((double)z[0] - top);
        for (int k = 1; k < classes; k++) sum += exp((double)z[k] - top);
        loss[i] = w[i] * (log(sum) + top - (double)z[y[i]]);
        for (int k = 0; k < classes; k++)
            g[i * classes + k] = (float)(w[i] * (exp((double)z[k] - top) / sum - (k == y[i])));
    }
    pass_gradient_classes(p);
    return ERR_OK;
}

extern const struct target target_classify;
const struct target target_classify = {.name = "classify",
                                       .help = "tell classes apart: cross-entropy",
                                       .classifies = true,
                                       .nominal_forwards = 3,
                                       .step = step};
