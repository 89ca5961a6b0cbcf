/* find: from a device's name to its table. The program links the CPU only; CUDA is a module loaded at run time, so that one
 * program runs on machines with and without it. */
#include <dlfcn.h>
#include <string.h>

#include "kernels/kernels.h"

extern const struct kernels kernels_cpu, kernels_cpu_portable;

static err_t find_cuda(const struct kernels **table)
{
    static const struct kernels *loaded;
    if (loaded) {
        *table = loaded;
        return ERR_OK;
    }
    void *so = dlopen("ect_cuda.so", RTLD_NOW | RTLD_LOCAL);
    if (!so) {
        const char *why = dlerror();
        return fail(
            ERR_DEVICE,
            "device cuda: the CUDA module ect_cuda.so could not be loaded (%s). Use --device cpu, or build the module "
            "where the CUDA toolkit is and put its directory into LD_LIBRARY_PATH",
            why ? why : "no reason given");
    }
    const struct kernels *k = dlsym(so, "kernels_cuda");
    if (!k) {
        dlclose(so);
        return fail(ERR_DEVICE,
                    "device cuda: ect_cuda.so has no kernels_cuda: it is not a module of this program, rebuild it");
    }
    *table = loaded = k;
    return ERR_OK;
}

err_t kernels_find(const char *spec, const struct kernels **table)
{
    if (!strcmp(spec, "cpu")) {
        *table = &kernels_cpu;
        return ERR_OK;
    }
    if (!strcmp(spec, "cpu-portable")) {
        *table = &kernels_cpu_portable;
        return ERR_OK;
    }
    if (!strcmp(spec, "cuda") || !strncmp(spec, "cuda:", 5)) return find_cuda(table);
    return fail(ERR_DEVICE, "no device is named '%s': there are cpu, cpu-portable, cuda, cuda:N", spec);
}
