/* What the files on disk have in common: little-endian numbers, and CRC32C. */
#ifndef FS_DISK_FORMAT_H
#define FS_DISK_FORMAT_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <isa-l/crc.h>

static inline void put32(char *bytes, uint32_t value)
{
    value = htole32(value);
    memcpy(bytes, &value, sizeof value);
}

static inline void put64(char *bytes, uint64_t value)
{
    value = htole64(value);
    memcpy(bytes, &value, sizeof value);
}

static inline uint32_t get32(const char *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof value);
    return le32toh(value);
}

static inline uint64_t get64(const char *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return le64toh(value);
}

/* Goes on from the CRC of what is before, 0 at first. Not const: the library's prototype wants it
 * so. */
static inline uint32_t crc32c(uint32_t before, char *bytes, size_t len)
{
    return ~crc32_iscsi((unsigned char *)bytes, (int)len, ~before);
}

#endif
