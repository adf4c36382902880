/* What the file store promises: whole objects or none, keys that cannot leave it, words when the disk is full. */
#include "proto/base/bytes.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* In place of the C library's, for all of this program. */
static atomic_int syncs;
int fsync(int fd)
{
    syncs++;
    return (int)syscall(SYS_fsync, fd);
}

struct world {
    char dir[64];
    char url[96];
    struct weir_store *store;
    struct weir_error error;
};

static int remove_one(const char *path, const struct stat *facts, int kind, struct FTW *where)
{
    (void)facts, (void)kind, (void)where;
    return remove(path);
}

static int begin(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    strcpy(w->dir, "/tmp/weir-store-XXXXXX");
    if (!w || !mkdtemp(w->dir)) return -1;
    snprintf(w->url, sizeof w->url, "file://%s/a/b", w->dir);
    if (weir_store_open(w->url, &w->store, &w->error) != WEIR_OK) return -1;
    *state = w;
    return 0;
}

static int end(void **state)
{
    struct world *w = *state;
    weir_store_close(&w->store);
    const int failed = nftw(w->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(w);
    return failed;
}

static void put_text(struct world *w, const char *key, const char *text)
{
    assert_int_equal(weir_store_put(w->store, key, text, strlen(text), &w->error), WEIR_OK);
}

static void see_text(struct world *w, const char *key, const char *text)
{
    void *bytes = NULL;
    size_t count = 0;
    assert_int_equal(weir_store_get(w->store, key, 1 << 20, &bytes, &count, &w->error), WEIR_OK);
    assert_int_equal(count, strlen(text));
    assert_memory_equal(bytes, text, count);
    free(bytes);
}

static void what_was_put_is_read_whole_and_in_parts(void **state)
{
    struct world *w = *state;
    char part[8];
    size_t got = 9;
    uint64_t bytes = 0;
    put_text(w, "t/local/j/1/text-0/abc", "hello, store");
    see_text(w, "t/local/j/1/text-0/abc", "hello, store");
    put_text(w, "empty", "");
    see_text(w, "empty", "");
    assert_int_equal(weir_store_stat(w->store, "t/local/j/1/text-0/abc", &bytes, &w->error), WEIR_OK);
    assert_int_equal(bytes, 12);
    assert_int_equal(weir_store_read(w->store, "t/local/j/1/text-0/abc", 7, part, 3, &got, &w->error), WEIR_OK);
    assert_int_equal(got, 3);
    assert_memory_equal(part, "sto", 3);
    assert_int_equal(weir_store_read(w->store, "t/local/j/1/text-0/abc", 10, part, 8, &got, &w->error), WEIR_OK);
    assert_int_equal(got, 2);
    assert_int_equal(weir_store_read(w->store, "t/local/j/1/text-0/abc", 12, part, 8, &got, &w->error), WEIR_OK);
    assert_int_equal(got, 0);
}

static void an_object_that_is_there_stays_as_it_is(void **state)
{
    struct world *w = *state;
    put_text(w, "k", "first");
    put_text(w, "k", "second");
    see_text(w, "k", "first");
}

static void what_can_be_made_again_waits_for_no_disk(void **state)
{
    struct world *w = *state;
    put_text(w, "job/first", "of its folder");
    syncs = 0;
    assert_int_equal(weir_store_put_remakeable(w->store, "job/latents", "hello", 5, &w->error), WEIR_OK);
    assert_int_equal(weir_store_put_remakeable(w->store, "job/deep/er", "hello", 5, &w->error), WEIR_OK);
    assert_int_equal(syncs, 0);
    see_text(w, "job/latents", "hello");
    assert_int_equal(weir_store_put_remakeable(w->store, "job/latents", "other", 5, &w->error), WEIR_OK);
    assert_int_equal(weir_store_put_remakeable(w->store, "not a key", "x", 1, &w->error), WEIR_BAD_ARGUMENT);
    assert_int_equal(syncs, 0);
    put_text(w, "job/latents", "hello"); /* it is there, and lasts from now on: itself and its name */
    assert_int_equal(syncs, 2);
    put_text(w, "job/new", "hello");
    assert_int_equal(syncs, 4);
    see_text(w, "job/latents", "hello");
}

static void a_missing_object_is_not_found_and_one_over_the_limit_too_large(void **state)
{
    struct world *w = *state;
    void *bytes = w;
    size_t count = 1;
    uint64_t size;
    assert_int_equal(weir_store_get(w->store, "none", 10, &bytes, &count, &w->error), WEIR_NOT_FOUND);
    assert_null(bytes);
    assert_non_null(strstr(w->error.words, "none"));
    assert_int_equal(weir_store_stat(w->store, "none/at/all", &size, &w->error), WEIR_NOT_FOUND);
    put_text(w, "folder/ten", "0123456789");
    assert_int_equal(weir_store_stat(w->store, "folder", &size, &w->error), WEIR_NOT_FOUND);
    assert_int_equal(weir_store_stat(w->store, "folder/ten/inside", &size, &w->error), WEIR_NOT_FOUND);
    assert_int_equal(weir_store_get(w->store, "folder/ten", 9, &bytes, &count, &w->error), WEIR_TOO_LARGE);
    assert_int_equal(weir_store_get(w->store, "folder/ten", 10, &bytes, &count, &w->error), WEIR_OK);
    free(bytes);
}

static void keys_keep_to_their_alphabet_and_lengths(void **state)
{
    struct world *w = *state;
    static const char *const bad[] = { "",    "/",   "/a",  "a/",  "a//b",        ".",      "..",   "../a", "a/..",
                                       "a/.", "a b", "a\n", "a~b", "caf\xc3\xa9", "a/../b", "a\\b", "a:b" };
    for (size_t i = 0; i < WEIR_COUNT(bad); i++) {
        assert_int_equal(weir_store_put(w->store, bad[i], "x", 1, &w->error), WEIR_BAD_ARGUMENT);
    }
    static const char *const good[] = { "a.b", "...", "..a", "A-Z_0.9", "-" };
    for (size_t i = 0; i < WEIR_COUNT(good); i++) put_text(w, good[i], good[i]);

    char key[300];
    memset(key, 'a', sizeof key);
    key[128] = '\0';
    put_text(w, key, "segment of 128");
    key[128] = 'a';
    key[129] = '\0';
    assert_int_equal(weir_store_put(w->store, key, "x", 1, &w->error), WEIR_BAD_ARGUMENT);
    memset(key, 'b', sizeof key);
    key[100] = key[200] = '/';
    key[255] = '\0';
    put_text(w, key, "key of 255");
    key[255] = 'b';
    key[256] = '\0';
    assert_int_equal(weir_store_put(w->store, key, "x", 1, &w->error), WEIR_BAD_ARGUMENT);
}

static void a_symlink_inside_leads_nowhere(void **state)
{
    struct world *w = *state;
    char link[200], outside[100];
    uint64_t bytes;
    snprintf(outside, sizeof outside, "%s/outside", w->dir);
    assert_int_equal(mkdir(outside, 0700), 0);
    snprintf(link, sizeof link, "%s/a/b/out", w->dir);
    assert_int_equal(symlink(outside, link), 0);
    assert_int_equal(weir_store_put(w->store, "out/x", "x", 1, &w->error), WEIR_STORE);
    assert_int_not_equal(weir_store_stat(w->store, "out/x", &bytes, &w->error), WEIR_OK);
    assert_int_equal(weir_store_remove(w->store, "out", &w->error), WEIR_OK); /* the link, not what it names */
    struct stat facts;
    assert_int_equal(stat(outside, &facts), 0);
}

struct seen {
    char text[1024];
    int left;
};

static bool note(void *context, const char *key)
{
    struct seen *seen = context;
    strcat(seen->text, key);
    strcat(seen->text, " ");
    return --seen->left > 0;
}

static void lists_are_sorted_by_bytes_and_stop_when_told(void **state)
{
    struct world *w = *state;
    struct seen all = { .left = 100 }, some = { .left = 2 }, one = { .left = 100 }, none = { .left = 100 };
    put_text(w, "t/a/z", "");
    put_text(w, "t/a-b/x", "");
    put_text(w, "t/a/c/y", "");
    put_text(w, "u", "");
    assert_int_equal(weir_store_list(w->store, "", note, &all, &w->error), WEIR_OK);
    assert_string_equal(all.text, "t/a-b/x t/a/c/y t/a/z u ");
    assert_int_equal(weir_store_list(w->store, "t", note, &some, &w->error), WEIR_OK);
    assert_string_equal(some.text, "t/a-b/x t/a/c/y ");
    assert_int_equal(weir_store_list(w->store, "t/a/", note, &one, &w->error), WEIR_OK);
    assert_string_equal(one.text, "t/a/c/y t/a/z ");
    assert_int_equal(weir_store_list(w->store, "t/b", note, &none, &w->error), WEIR_OK);
    assert_string_equal(none.text, "");
    assert_int_equal(weir_store_list(w->store, "u", note, &none, &w->error), WEIR_OK);
    assert_string_equal(none.text, "u ");
}

static void removal_takes_what_is_under_the_prefix_and_nothing_else(void **state)
{
    struct world *w = *state;
    struct seen left = { .left = 100 };
    put_text(w, "t/x/j/1/a/1", "");
    put_text(w, "t/x/j/1/b", "");
    put_text(w, "t/x/j/10", "");
    put_text(w, "t/x/j/2/ckpt/000005", "");
    put_text(w, "t/x/j/2/ckpt/000010", "");
    assert_int_equal(weir_store_remove(w->store, "t/x/j/1", &w->error), WEIR_OK);
    assert_int_equal(weir_store_remove(w->store, "t/x/j/1", &w->error), WEIR_OK); /* gone already */
    assert_int_equal(weir_store_remove(w->store, "t/x/j/2/ckpt/000005", &w->error), WEIR_OK);
    assert_int_equal(weir_store_remove(w->store, "", &w->error), WEIR_BAD_ARGUMENT);
    assert_int_equal(weir_store_list(w->store, "", note, &left, &w->error), WEIR_OK);
    assert_string_equal(left.text, "t/x/j/10 t/x/j/2/ckpt/000010 ");
    put_text(w, "t/x/j/1/a/1", "again");
    see_text(w, "t/x/j/1/a/1", "again");
}

static void a_file_is_taken_by_copy_and_a_missing_one_is_named(void **state)
{
    struct world *w = *state;
    char path[100];
    enum { BYTES = (1 << 20) + 17 };
    uint8_t *bytes = malloc(BYTES);
    for (size_t i = 0; i < BYTES; i++) bytes[i] = (uint8_t)(i * 7 >> 3);
    snprintf(path, sizeof path, "%s/film", w->dir);
    const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(weir_fd_write(fd, bytes, BYTES, path, &w->error), WEIR_OK);
    close(fd);
    assert_int_equal(weir_store_put_file(w->store, "t/film", path, &w->error), WEIR_OK);
    unlink(path);
    void *back;
    size_t count;
    assert_int_equal(weir_store_get(w->store, "t/film", BYTES, &back, &count, &w->error), WEIR_OK);
    assert_int_equal(count, BYTES);
    assert_memory_equal(back, bytes, BYTES);
    free(back);
    free(bytes);
    assert_int_equal(weir_store_put_file(w->store, "t/film2", path, &w->error), WEIR_NOT_FOUND);
    assert_non_null(strstr(w->error.words, path));
    assert_int_equal(weir_store_put_file(w->store, "t/film2", w->dir, &w->error), WEIR_IO);
    char where[200];
    assert_true(weir_store_path(w->store, "t/film", where, sizeof where));
    assert_int_equal(access(where, R_OK), 0);
    assert_false(weir_store_path(w->store, "t/film", where, 5));
}

static void urls_of_other_kinds_are_refused_in_words(void **state)
{
    struct world *w = *state;
    struct weir_store *store = w->store;
    assert_int_equal(weir_store_open("s3://bucket", &store, &w->error), WEIR_UNSUPPORTED);
    assert_null(store);
    assert_int_equal(weir_store_open("file:relative", &store, &w->error), WEIR_BAD_ARGUMENT);
    assert_int_equal(weir_store_open("", &store, &w->error), WEIR_BAD_ARGUMENT);
    assert_int_equal(weir_store_open("/proc/nothing", &store, &w->error), WEIR_STORE);
    assert_non_null(strstr(w->error.words, "/proc/nothing"));
}

/* ---- threads ---- */

enum { THREADS = 4, ROUNDS = 40, BYTES = 50000 };

struct putter {
    struct weir_store *store;
    uint8_t fill;
    int failed;
};

static void *put_many(void *context)
{
    struct putter *p = context;
    uint8_t *bytes = malloc(BYTES);
    memset(bytes, p->fill, BYTES);
    for (int i = 0; i < ROUNDS; i++) {
        char key[64];
        snprintf(key, sizeof key, "t/race/%d", i);
        struct weir_error error;
        if (weir_store_put(p->store, key, bytes, BYTES, &error) == WEIR_OK) continue;
        print_error("%s\n", error.words);
        p->failed++;
    }
    free(bytes);
    return NULL;
}

static void of_many_puts_of_one_key_one_wins_whole(void **state)
{
    struct world *w = *state;
    pthread_t threads[THREADS];
    struct putter putters[THREADS];
    for (int i = 0; i < THREADS; i++) {
        putters[i] = (struct putter){ w->store, (uint8_t)('a' + i), 0 };
        assert_int_equal(pthread_create(&threads[i], NULL, put_many, &putters[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(putters[i].failed, 0);
    }
    for (int i = 0; i < ROUNDS; i++) {
        char key[64];
        void *bytes;
        size_t count;
        snprintf(key, sizeof key, "t/race/%d", i);
        assert_int_equal(weir_store_get(w->store, key, BYTES, &bytes, &count, &w->error), WEIR_OK);
        assert_int_equal(count, BYTES);
        const uint8_t *b = bytes;
        assert_in_range(b[0], 'a', 'a' + THREADS - 1);
        for (size_t j = 1; j < BYTES; j++) {
            if (b[j] != b[0]) fail_msg("key %s is mixed at byte %zu", key, j);
        }
        free(bytes);
    }
}

static void *sweep_many(void *context)
{
    struct putter *p = context;
    for (int i = 0; i < 4 * ROUNDS; i++) {
        struct weir_error error;
        if (weir_store_remove(p->store, "t/race", &error) == WEIR_OK) continue;
        print_error("%s\n", error.words);
        p->failed++;
    }
    return NULL;
}

static void a_sweep_under_a_put_breaks_neither(void **state)
{
    struct world *w = *state;
    pthread_t putting, sweeping;
    struct putter p = { w->store, 'p', 0 }, s = { w->store, 0, 0 };
    assert_int_equal(pthread_create(&putting, NULL, put_many, &p), 0);
    assert_int_equal(pthread_create(&sweeping, NULL, sweep_many, &s), 0);
    pthread_join(putting, NULL);
    pthread_join(sweeping, NULL);
    assert_int_equal(p.failed, 0);
    assert_int_equal(s.failed, 0);
}

/* ---- a disk that refuses ---- */

static int count_one(const char *path, const struct stat *facts, int kind, struct FTW *where)
{
    (void)path, (void)kind, (void)where;
    return S_ISREG(facts->st_mode) ? 1 : 0; /* a file ends the walk */
}

/* In a child: 0 when a put over the limit fails with STORE, says `words`, and leaves no file; then a small one works. */
static int put_too_much(const char *dir, const char *words)
{
    struct weir_store *store;
    struct weir_error error = { .words = "" };
    static const uint8_t bytes[1 << 20];
    char url[128];
    snprintf(url, sizeof url, "%s/full", dir);
    if (weir_store_open(url, &store, &error) != WEIR_OK) return 10;
    if (weir_store_put(store, "t/big", bytes, sizeof bytes, &error) != WEIR_STORE) return 11;
    if (!strstr(error.words, words) || !strstr(error.words, "t/big")) return 12;
    if (nftw(url, count_one, 16, FTW_PHYS) != 0) return 13;
    if (weir_store_put(store, "t/small", bytes, 1000, &error) != WEIR_OK) return 14;
    weir_store_close(&store);
    return 0;
}

static int child_result(pid_t child)
{
    int result = -1;
    while (waitpid(child, &result, 0) < 0 && errno == EINTR) continue;
    return WIFEXITED(result) ? WEXITSTATUS(result) : -1;
}

static void a_write_that_is_cut_short_leaves_nothing(void **state)
{
    struct world *w = *state;
    const pid_t child = fork();
    if (child == 0) {
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){ 64 << 10, 64 << 10 });
        _exit(put_too_much(w->dir, "File too large"));
    }
    assert_int_equal(child_result(child), 0);
}

static void a_full_disk_is_said_in_words_and_leaves_nothing(void **state)
{
    struct world *w = *state;
    enum { CANNOT_MOUNT = 99 };
    const pid_t child = fork();
    if (child == 0) {
        const int space = geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER;
        if (unshare(space) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
            mount("tmpfs", w->dir, "tmpfs", 0, "size=128k") != 0) {
            _exit(CANNOT_MOUNT);
        }
        _exit(put_too_much(w->dir, "disk is full"));
    }
    const int result = child_result(child);
    if (result == CANNOT_MOUNT) skip();
    assert_int_equal(result, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_put_is_read_whole_and_in_parts, begin, end),
        cmocka_unit_test_setup_teardown(an_object_that_is_there_stays_as_it_is, begin, end),
        cmocka_unit_test_setup_teardown(what_can_be_made_again_waits_for_no_disk, begin, end),
        cmocka_unit_test_setup_teardown(a_missing_object_is_not_found_and_one_over_the_limit_too_large, begin, end),
        cmocka_unit_test_setup_teardown(keys_keep_to_their_alphabet_and_lengths, begin, end),
        cmocka_unit_test_setup_teardown(a_symlink_inside_leads_nowhere, begin, end),
        cmocka_unit_test_setup_teardown(lists_are_sorted_by_bytes_and_stop_when_told, begin, end),
        cmocka_unit_test_setup_teardown(removal_takes_what_is_under_the_prefix_and_nothing_else, begin, end),
        cmocka_unit_test_setup_teardown(a_file_is_taken_by_copy_and_a_missing_one_is_named, begin, end),
        cmocka_unit_test_setup_teardown(urls_of_other_kinds_are_refused_in_words, begin, end),
        cmocka_unit_test_setup_teardown(of_many_puts_of_one_key_one_wins_whole, begin, end),
        cmocka_unit_test_setup_teardown(a_sweep_under_a_put_breaks_neither, begin, end),
        cmocka_unit_test_setup_teardown(a_write_that_is_cut_short_leaves_nothing, begin, end),
        cmocka_unit_test_setup_teardown(a_full_disk_is_said_in_words_and_leaves_nothing, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
