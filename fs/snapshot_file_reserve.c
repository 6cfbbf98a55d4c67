/* The room that is kept on the disk for the next snapshot: a file "reserve". See snapshot_file.h.
 */
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>

#include "snapshot_file_internal.h"

/* It grows by steps, which become smaller near the end of the disk. */
enum { STEP_BYTES_MAX = 4 << 20, STEP_BYTES_MIN = 64 << 10 };

struct snapshot__path snapshot__reserve_path(const char *directory)
{
    struct snapshot__path path;
    int len = snprintf(path.text, sizeof path.text, "%s/reserve", directory);
    assert(len > 0 && (size_t)len < sizeof path.text);
    return path;
}

uint64_t snapshot__reserve(const struct disk *disk, const char *directory, uint64_t there,
                           uint64_t wanted)
{
    struct snapshot__path path = snapshot__reserve_path(directory);
    uint64_t step = STEP_BYTES_MAX;

    int file = disk->open(disk->context, path.text, O_RDWR | O_CREAT);
    if (file < 0)
        return there;
    while (there < wanted && step >= STEP_BYTES_MIN) {
        uint64_t bytes = step < wanted - there ? step : wanted - there;
        if (disk->allocate(disk->context, file, there, bytes) == 0)
            there += bytes;
        else
            step /= 2;
    }
    disk->close(disk->context, file);
    return there;
}
