/* The wall clock of one process, shifted by what its control file says: CLOCK_REALTIME, gettimeofday and time, nothing else.
 *
 * Deadlines, sleeps and the event loop go by the other clocks and stay right. The file is mapped, so a change counts at once,
 * and it says until when it counts (on CLOCK_MONOTONIC): the clock is right again by itself, whoever wrote it and died.
 *
 * The file: a byte that counts the changes, 7 bytes unused, and two changes; the count's last bit says which one counts.
 * Whoever writes fills in the other one first. See chaos/cluster/clocks.py.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define BILLION 1000000000LL

struct change {
    int64_t since_ns, until_ns, jump_ns, drift_ppb;
};

struct control {
    uint8_t count, unused[7];
    struct change changes[2];
};

static const volatile struct control *control;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

static void find_real(void)
{
    real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
}

__attribute__((constructor)) static void map_control(void)
{
    const char *path = getenv("HASCHED_CHAOS_CLOCK");
    struct stat status;
    int file;

    find_real();
    if (path == NULL || (file = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        return;
    if (fstat(file, &status) == 0 && status.st_size >= (off_t)sizeof(struct control)) {
        void *mapped = mmap(NULL, sizeof(struct control), PROT_READ, MAP_SHARED, file, 0);
        if (mapped != MAP_FAILED)
            control = mapped;
    }
    close(file);
}

static int64_t shift_ns(void)
{
    struct change change;
    struct timespec time;
    int64_t now_ns;
    uint8_t count;

    if (control == NULL)
        return 0;
    do {
        count = __atomic_load_n(&control->count, __ATOMIC_ACQUIRE);
        change = *(const struct change *)&control->changes[count & 1];
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
    } while (count != __atomic_load_n(&control->count, __ATOMIC_RELAXED));
    if (change.until_ns == 0 || real_clock_gettime(CLOCK_MONOTONIC, &time) != 0)
        return 0;
    now_ns = time.tv_sec * BILLION + time.tv_nsec;
    if (now_ns >= change.until_ns)
        return 0;
    return change.jump_ns + (int64_t)((__int128)(now_ns - change.since_ns) * change.drift_ppb / BILLION);
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    int64_t all_ns;
    int result;

    if (real_clock_gettime == NULL) /* asked by another library's constructor, before ours */
        find_real();
    result = real_clock_gettime(clock, time);
    if (result != 0 || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE))
        return result;
    all_ns = time->tv_sec * BILLION + time->tv_nsec + shift_ns();
    time->tv_sec = all_ns / BILLION;
    time->tv_nsec = all_ns % BILLION;
    if (time->tv_nsec < 0) { /* before 1970 */
        time->tv_nsec += BILLION;
        time->tv_sec -= 1;
    }
    return 0;
}

int gettimeofday(struct timeval *restrict value, void *restrict zone)
{
    struct timespec time;

    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &time) != 0)
        return -1;
    value->tv_sec = time.tv_sec;
    value->tv_usec = time.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result)
{
    struct timespec now;

    if (clock_gettime(CLOCK_REALTIME, &now) != 0)
        return (time_t)-1;
    if (result != NULL)
        *result = now.tv_sec;
    return now.tv_sec;
}
