/* tar: gzipped tar archives, unpacked into a directory. Files and directories are made, nothing else: a name that leads out of the directory,
 * a link or a device is refused, as is an archive that is cut, damaged, or holds more than `most` bytes. */
#ifndef CORE_IO_TAR_H
#define CORE_IO_TAR_H

#include "core/base.h"

/* dir is made. After a failure what was unpacked so far is still there. */
err_t tar_unpack(const char *path, const char *dir, uint64_t most) MUST_USE;

#endif
