/* The guard: a fixed table of mappings that the SIGBUS handler searches. This is the one place with file-level
 * mutable variables in this folder: a handler has no argument through which a caller's table could reach it. Rows are
 * claimed by compare-and-swap; the handler reads them without locks, and only ever on its way to _exit. */
#include "worker/mapping.h"
#include "worker/weights.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define LABEL_BYTES 256

struct row {
    atomic_bool taken;
    atomic_uintptr_t start, end; /* both 0: nothing there yet, or any more */
    char label[LABEL_BYTES];
};

static struct row rows[WEIR_MAPPINGS_GUARDED_MAX];
static const char *_Atomic guard_program;

static int guard_add(const void *bytes, size_t count, const char *label)
{
    for (int i = 0; i < WEIR_MAPPINGS_GUARDED_MAX; i++) {
        bool free_row = false;
        if (!atomic_compare_exchange_strong(&rows[i].taken, &free_row, true)) continue;
        strncpy(rows[i].label, label, LABEL_BYTES - 1);
        atomic_store(&rows[i].start, (uintptr_t)bytes);
        atomic_store(&rows[i].end, (uintptr_t)bytes + count);
        return i;
    }
    return -1;
}

static void guard_remove(int index)
{
    if (index < 0) return;
    atomic_store(&rows[index].end, 0);
    atomic_store(&rows[index].start, 0);
    atomic_store(&rows[index].taken, false);
}

static struct iovec piece(const char *text)
{
    return (struct iovec){ .iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text) };
}

static void on_sigbus(int signal_number, siginfo_t *info, void *context)
{
    (void)context;
    const uintptr_t address = (uintptr_t)info->si_addr;
    for (int i = 0; i < WEIR_MAPPINGS_GUARDED_MAX && info->si_code > 0; i++) {
        if (address < atomic_load(&rows[i].start) || address >= atomic_load(&rows[i].end)) continue;
        const struct iovec line[] = { piece(atomic_load(&guard_program)), piece(": "), piece(rows[i].label),
                                      piece(": the file was cut short, or could not be read, while in use\n") };
        const ssize_t put = writev(STDERR_FILENO, line, (int)WEIR_COUNT(line));
        (void)put;
        _exit(weir_status_exit_code(WEIR_BAD_MODEL));
    }
    signal(signal_number, SIG_DFL); /* not ours: let it be what it would have been */
    raise(signal_number);
}

void weir_weights_guard_install(const char *program)
{
    struct sigaction action = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };
    atomic_store(&guard_program, program);
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}

enum weir_status weir_mapping_init(struct weir_mapping *mapping, int fd, const char *label, struct weir_error *error)
{
    struct stat facts;
    *mapping = (struct weir_mapping){ .guard = -1 };
    if (fstat(fd, &facts) != 0) return weir_fail(error, WEIR_IO, "%s: %s", label, strerror(errno));
    if (facts.st_size == 0) return WEIR_OK;
    void *bytes = mmap(NULL, (size_t)facts.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED) {
        return weir_fail(error, errno == ENOMEM ? WEIR_NO_MEMORY : WEIR_IO, "%s: it cannot be mapped: %s", label,
                         strerror(errno));
    }
    mapping->bytes = bytes;
    mapping->count = (size_t)facts.st_size;
    mapping->guard = guard_add(bytes, mapping->count, label);
    return WEIR_OK;
}

void weir_mapping_deinit(struct weir_mapping *mapping)
{
    if (!mapping->bytes) return;
    guard_remove(mapping->guard);
    munmap((void *)(uintptr_t)mapping->bytes, mapping->count);
    *mapping = (struct weir_mapping){ .guard = -1 };
}
