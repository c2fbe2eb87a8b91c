/* A sick disk and a wrong clock for one process, by LD_PRELOAD: the calls go through here on their way to libc.
 *
 * RUSD_FAULTS names a file of 16 words that the test has mapped, too, and changes while the process runs; RUSD_FAULTS_DIR the directory
 * whose files are meant. See shim.rs for the words. A server that isn't started this way knows nothing of it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum { SYNC_DELAY_US, SYNC_ERROR, STALLED, WRITE_ERROR, CLOCK_OFFSET_SECS, DIE_AT, DIE_AFTER, CALLS, WORDS = 16 };
enum { AT_SYNC = 1, AT_WRITE, AT_RENAME, AT_UNLINK };

static volatile int32_t none[WORDS];
static volatile int32_t *words = none;
static char directory[4096];
static size_t directory_length;

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("RUSD_FAULTS"), *of = getenv("RUSD_FAULTS_DIR");
    if (!path || !of) return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) abort();
    void *mapped = mmap(NULL, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped == MAP_FAILED) abort();
    words = mapped;
    strncpy(directory, of, sizeof directory - 1);
    directory_length = strlen(directory);
}

/* Whether the file belongs to the directory. */
static int ours(int fd) {
    if (words == none) return 0;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strncmp(path, directory, directory_length) == 0;
}

static int ours_path(const char *path) {
    return words != none && strncmp(path, directory, directory_length) == 0;
}

static void pause_us(int32_t microseconds) {
    struct timespec time = {microseconds / 1000000, (microseconds % 1000000) * 1000L};
    while (nanosleep(&time, &time) && errno == EINTR) {}
}

/* Ends the process, as kill -9 would, at the call that was asked for. */
static void pass(int kind) {
    __atomic_add_fetch(&words[CALLS], 1, __ATOMIC_SEQ_CST);
    if (words[DIE_AT] == kind && __atomic_sub_fetch(&words[DIE_AFTER], 1, __ATOMIC_SEQ_CST) < 0) {
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
}

static int before_sync(int fd) {
    if (!ours(fd)) return 0;
    pass(AT_SYNC);
    while (words[STALLED]) pause_us(2000);
    if (words[SYNC_DELAY_US]) pause_us(words[SYNC_DELAY_US]);
    return words[SYNC_ERROR];
}

static int before_write(int fd) {
    if (!ours(fd)) return 0;
    pass(AT_WRITE);
    while (words[STALLED]) pause_us(2000);
    return words[WRITE_ERROR];
}

int fdatasync(int fd) {
    REAL(fdatasync);
    int error = before_sync(fd);
    if (error) { errno = error; return -1; }
    return real(fd);
}

int fsync(int fd) {
    REAL(fsync);
    int error = before_sync(fd);
    if (error) { errno = error; return -1; }
    return real(fd);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
    REAL(pwrite64);
    int error = before_write(fd);
    if (error) { errno = error; return -1; }
    return real(fd, bytes, length, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
    return pwrite64(fd, bytes, length, at);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    REAL(write);
    int error = words == none || fd <= 2 ? 0 : before_write(fd);
    if (error) { errno = error; return -1; }
    return real(fd, bytes, length);
}

int rename(const char *from, const char *to) {
    REAL(rename);
    if (ours_path(to)) {
        pass(AT_RENAME);
        if (words[WRITE_ERROR]) { errno = words[WRITE_ERROR]; return -1; }
    }
    return real(from, to);
}

int unlink(const char *path) {
    REAL(unlink);
    if (ours_path(path)) pass(AT_UNLINK);
    return real(path);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    REAL(clock_gettime);
    int result = real(clock, time);
    if (result == 0 && clock == CLOCK_REALTIME) time->tv_sec += words[CLOCK_OFFSET_SECS];
    return result;
}
