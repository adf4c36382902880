/* Preloaded into weir-worker by test_same_bytes.sh: kill -9 at an exact moment, once.
 *
 * The file that WEIR_TEST_KILL names says when: `text-0 before` (its first object is written and fsynced but has no name
 * yet) or `text-0 after` (it has its name, and nobody was told). Whoever removes the file dies. */
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int linkat_function(int from_fd, const char *from, int to_fd, const char *to, int flags);

static void die_if_asked(int folder, const char *moment)
{
    const char *order = getenv("WEIR_TEST_KILL");
    char wanted_task[64], wanted_moment[16], self[32], path[4096];
    FILE *file = order ? fopen(order, "re") : NULL;
    if (!file) return;
    const int fields = fscanf(file, "%63s %15s", wanted_task, wanted_moment);
    fclose(file);
    snprintf(self, sizeof self, "/proc/self/fd/%d", folder);
    const ssize_t length = readlink(self, path, sizeof path - 1);
    if (fields != 2 || length <= 0 || strcmp(wanted_moment, moment) != 0) return;
    path[length] = '\0';
    if (strstr(path, "/store/") && strstr(path, wanted_task) && unlink(order) == 0) kill(getpid(), SIGKILL);
}

__attribute__((visibility("default"))) int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    linkat_function *real;
    *(void **)&real = dlsym(RTLD_NEXT, "linkat");
    die_if_asked(to_fd, "before");
    const int result = real(from_fd, from, to_fd, to, flags);
    if (result == 0) die_if_asked(to_fd, "after");
    return result;
}
