/*
 * The floor of a durable write: appends of 4 KiB to a file that was filled with zeros before, each
 * with one fdatasync.
 *
 *     bench_sync pool|direct SECONDS FILE
 *
 * `pool` calls uv_fs_fdatasync(), so that the call is made by a thread of libuv's pool and its end
 * comes back through the loop, as in the daemon; `direct` calls fdatasync(2). The write itself is
 * a direct pwrite(2) in both. Prints one line of name=value pairs, times in microseconds of
 * CLOCK_MONOTONIC. FILE must not exist, and is removed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <uv.h>

enum {
    BLOCK_BYTES = 4096,
    FILE_BLOCKS = 1024, /* 4 MiB, as a segment of the log */
    SAMPLES_MAX = 1 << 20,
};

struct bench {
    uv_loop_t loop;
    uv_fs_t request;
    bool pool;
    int fd;
    uint64_t block;
    uint64_t begin_ns;
    uint64_t end_ns;
    uint32_t *samples;
    size_t count;
};

static char zeros[BLOCK_BYTES];

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void die(const char *what, int error)
{
    fprintf(stderr, "bench_sync: %s: %s\n", what, strerror(error));
    exit(1);
}

static void fill(int fd)
{
    for (int i = 0; i < FILE_BLOCKS; i++)
        if (write(fd, zeros, BLOCK_BYTES) != BLOCK_BYTES)
            die("write", errno);
    if (fsync(fd) != 0)
        die("fsync", errno);
}

static void put_block(struct bench *bench)
{
    char block[BLOCK_BYTES];

    memset(block, (int)(bench->count & 0xff) | 1, sizeof block);
    bench->begin_ns = now_ns();
    off_t offset = (off_t)(bench->block++ % FILE_BLOCKS * BLOCK_BYTES);
    if (pwrite(bench->fd, block, BLOCK_BYTES, offset) != BLOCK_BYTES)
        die("pwrite", errno);
}

/* Returns whether there is another one. */
static bool note_end(struct bench *bench)
{
    uint64_t now = now_ns();
    bench->samples[bench->count++] = (uint32_t)(now - bench->begin_ns);
    return now < bench->end_ns && bench->count < SAMPLES_MAX;
}

static void on_synced(uv_fs_t *request)
{
    struct bench *bench = request->data;
    int error = (int)request->result;

    uv_fs_req_cleanup(request);
    if (error)
        die("uv_fs_fdatasync", -error);
    if (!note_end(bench))
        return;
    put_block(bench);
    uv_fs_fdatasync(&bench->loop, &bench->request, bench->fd, on_synced);
}

static void run_pool(struct bench *bench)
{
    if (uv_loop_init(&bench->loop))
        die("uv_loop_init", ENOMEM);
    bench->request.data = bench;
    put_block(bench);
    uv_fs_fdatasync(&bench->loop, &bench->request, bench->fd, on_synced);
    uv_run(&bench->loop, UV_RUN_DEFAULT);
    uv_loop_close(&bench->loop);
}

static void run_direct(struct bench *bench)
{
    do {
        put_block(bench);
        if (fdatasync(bench->fd) != 0)
            die("fdatasync", errno);
    } while (note_end(bench));
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    struct bench bench = {0};
    double seconds = argc == 4 ? atof(argv[2]) : 0;

    if (!(seconds > 0) || (strcmp(argv[1], "pool") != 0 && strcmp(argv[1], "direct") != 0)) {
        fprintf(stderr, "Usage: bench_sync pool|direct SECONDS FILE\n");
        return 2;
    }
    bench.pool = strcmp(argv[1], "pool") == 0;
    bench.samples = malloc(SAMPLES_MAX * sizeof *bench.samples);
    if (!bench.samples)
        die("malloc", ENOMEM);
    bench.fd = open(argv[3], O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (bench.fd < 0)
        die(argv[3], errno);
    unlink(argv[3]);
    fill(bench.fd);
    uint64_t begin = now_ns();
    bench.end_ns = begin + (uint64_t)(seconds * 1e9);
    if (bench.pool)
        run_pool(&bench);
    else
        run_direct(&bench);
    double elapsed = (double)(now_ns() - begin) / 1e9;
    qsort(bench.samples, bench.count, sizeof *bench.samples, compare);
    size_t middle = bench.count / 2;
    size_t late = (bench.count - 1) * 99 / 100;
    printf("cycles=%zu rate=%.1f cycle_p50_us=%.1f cycle_p99_us=%.1f\n", bench.count,
           (double)bench.count / elapsed, bench.samples[middle] / 1000.0,
           bench.samples[late] / 1000.0);
    free(bench.samples);
    return 0;
}
