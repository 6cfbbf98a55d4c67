/* What the subcommands share. See tool.h. */
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int fail(struct failure *ret_failure, int code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(ret_failure->text, sizeof ret_failure->text, format, args);
    va_end(args);
    ret_failure->code = code;
    return code;
}

int failure_tell(const struct failure *failure)
{
    tell("%s", failure->text);
    return failure->code;
}

void tell(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("lockfs: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

int exit_code_of(int error)
{
    switch (error) {
    case EWOULDBLOCK:
    case EEXIST:
    case EBUSY:
        return EXIT_NOT_ACQUIRED;
    case ESTALE:
        return EXIT_LOST;
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case ENOTEMPTY:
    case ENAMETOOLONG:
    case ELOOP:
    case EINVAL:
    case ENODATA:
        return EXIT_NO_LOCK;
    case EACCES:
    case EPERM:
        return EXIT_NO_PERMISSION;
    case ENOMEM:
    case EMFILE:
    case ENFILE:
        return EXIT_SYSTEM;
    default: /* ENOTCONN, EROFS, ENOTTY, ETIMEDOUT, ENOLCK, ENOSPC, EOPNOTSUPP and their like */
        return EXIT_UNAVAILABLE;
    }
}

const char *explain(int error)
{
    switch (error) {
    case ENOTCONN:
    case ECONNABORTED:
    case EROFS:
        return "lockfsd is not running there";
    case ENOTTY:
        return "this is not on a lockfs";
    case ETIMEDOUT:
        return "lockfsd has found no quorum in time; nothing was done";
    case ENOLCK:
        return "lockfsd has reached a limit, or is being stopped";
    case ESTALE:
        return "the claim was lost, or the lock was removed";
    case ENODATA:
        return "nothing is held";
    case EOPNOTSUPP:
        return "this version of lockfsd cannot do that";
    default:
        return strerror(error);
    }
}

int usage_error(const char *command)
{
    fprintf(stderr, "Try '%s --help'.\n", command);
    return EXIT_USAGE;
}

int finish_output(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 0;
    tell("cannot write the output: %s", strerror(errno));
    return EXIT_SYSTEM;
}

bool parse_number(const char *text, uint64_t *ret_number)
{
    uint64_t number = 0;

    if (text[0] == '\0')
        return false;
    for (; *text != '\0'; text++) {
        unsigned digit = (unsigned)(*text - '0');
        if (digit > 9 || number > (UINT64_MAX - digit) / 10)
            return false;
        number = 10 * number + digit;
    }
    *ret_number = number;
    return true;
}

bool parse_seconds(const char *text, int64_t *ret_ms)
{
    size_t whole = strspn(text, "0123456789");
    size_t fraction = 0;
    int64_t ms = 0;

    if (whole == 0 || whole > 12)
        return false;
    if (text[whole] == '.') {
        fraction = strspn(text + whole + 1, "0123456789");
        if (fraction == 0 || fraction > 3 || text[whole + 1 + fraction] != '\0')
            return false;
    } else if (text[whole] != '\0') {
        return false;
    }
    for (size_t i = 0; i < whole; i++)
        ms = 10 * ms + (text[i] - '0');
    for (size_t i = 0; i < 3; i++)
        ms = 10 * ms + (i < fraction ? text[whole + 1 + i] - '0' : 0);
    *ret_ms = ms;
    return true;
}

/* Reads until the end or until `size` bytes are there: the kernel gives a control file in pieces.
 */
static ssize_t read_up_to(int fd, char *buffer, size_t size)
{
    size_t length = 0;

    while (length < size) {
        ssize_t got = read(fd, buffer + length, size - length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        length += (size_t)got;
    }
    return (ssize_t)length;
}

ssize_t read_file(const char *path, char *buffer, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    if (fd < 0)
        return -errno;
    ssize_t length = read_up_to(fd, buffer, size);
    close(fd);
    if (length == (ssize_t)size)
        return -EFBIG;
    if (length >= 0)
        buffer[length] = '\0';
    return length;
}

ssize_t read_whole_file(const char *path, char **ret_text)
{
    size_t size = 4096;

    for (;;) {
        char *text = malloc(size);
        if (text == NULL)
            return -ENOMEM;
        ssize_t length = read_file(path, text, size);
        if (length >= 0) {
            *ret_text = text;
            return length;
        }
        free(text);
        if (length != -EFBIG || size > SIZE_MAX / 4)
            return length;
        size *= 4;
    }
}

int write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    int error = 0;

    if (fd < 0)
        return -errno;
    ssize_t written = write(fd, text, strlen(text));
    if (written < 0)
        error = -errno;
    else if ((size_t)written != strlen(text))
        error = -EIO;
    if (close(fd) != 0 && error == 0)
        error = -errno;
    return error;
}
