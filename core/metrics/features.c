#include "core/metrics/features.h"

#include <string.h>

double portable_uniform(const char *name, uint32_t i)
{
    uint32_t h = i * 2654435761u + crc32_of(0, name, strlen(name));
    h ^= h >> 16;
    h *= 0x85ebca6bu;
    h ^= h >> 13;
    h *= 0xc2b2ae35u;
    h ^= h >> 16;
    return h / 4294967296.0 - 0.5;
}

float portable_weight(const char *name, uint32_t i, double shift, double scale)
{
    return (float)(shift + scale * portable_uniform(name, i));
}
