#include "core/target.h"

#include <string.h>

extern const struct target target_edm, target_ect, target_ct, target_ict, target_cd, target_flow, target_classify;

const struct target *const targets[] = {&target_edm, &target_ect,  &target_ct,       &target_ict,
                                        &target_cd,  &target_flow, &target_classify, NULL};

const struct target *target_find(const char *name)
{
    for (int i = 0; targets[i]; i++) {
        if (!strcmp(targets[i]->name, name)) return targets[i];
    }
    return NULL;
}
