/* weir-encode, run as a program: films and images that read back as what went in, equal bytes for equal input, and
 * nothing left behind when something fails. All work is in one temporary folder; its `out` may hold nothing but finished results. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "proto/base/bytes.h"
#include "proto/base/clock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SIDE = 128, FRAMES = 16, FRAME_BYTES = SIDE * SIDE * 3, WORDS_MAX = 40, WAIT_MS = 30000 };

#define PROGRAM WEIR_BIN_DIR "/weir-encode"
#define RECEIPT "{\"prompt\":\"ein roter Kreis \xe2\x97\x8f\",\"seed\":7}\n"

static const struct film_kind {
    const char *format, *codec;
    double flat_error_max; /* mean over a flat area and its channels, of 255 */
} kinds[] = {
    { "mp4", "h264", 3 }, { "mp4", "av1", 3 }, { "mp4", "vp9", 3 }, { "webm", "vp9", 3 },
    { "webm", "av1", 3 }, { "gif", NULL, 0 },  { "png", NULL, 0 },
};

static const struct image_kind {
    const char *format;
    bool is_exact;
    size_t receipt_bytes_max;
} images[] = { { "png", true, 65536 }, { "jpeg", false, 65533 }, { "webp", true, 65536 } };

struct world {
    char folder[64];
    uint8_t *frames; /* FRAMES of SIDE x SIDE */
    char *codecs;    /* what `version` said */
    char *output;    /* of the last run; NUL-terminated */
    size_t output_bytes;
    char words[1024]; /* standard error of the last run */
    char film[200];   /* what film() gives out */
};

/* A red disc that moves over navy, with a soft edge. */
static void draw(uint8_t *rgb, int frame)
{
    static const uint8_t red[3] = { 220, 40, 40 }, navy[3] = { 18, 24, 70 };
    const int cx = 30 + 4 * frame, cy = 64, radius = 22;
    for (int y = 0; y < SIDE; y++) {
        for (int x = 0; x < SIDE; x++, rgb += 3) {
            const int d2 = (x - cx) * (x - cx) + (y - cy) * (y - cy);
            const int share = d2 <= (radius - 1) * (radius - 1) ? 4 : d2 > radius * radius ? 0 : 2;
            for (int c = 0; c < 3; c++) rgb[c] = (uint8_t)((red[c] * share + navy[c] * (4 - share)) / 4);
        }
    }
}

static char *path_of(const struct world *w, const char *name)
{
    char *path = NULL;
    assert_true(asprintf(&path, "%s/%s", w->folder, name) > 0);
    return path; /* freed with the process: a test makes a few hundred bytes of them */
}

static void write_file(const struct world *w, const char *name, const void *bytes, size_t count)
{
    char *path = path_of(w, name);
    const int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);
    assert_true(fd >= 0);
    assert_int_equal(weir_fd_write(fd, bytes, count, path, NULL), WEIR_OK);
    close(fd);
    free(path);
}

static char *read_file(const struct world *w, const char *name, size_t *count)
{
    char *path = path_of(w, name), *bytes = NULL;
    assert_int_equal(weir_file_read(path, 1 << 28, &bytes, count, NULL), WEIR_OK);
    free(path);
    return bytes;
}

/* Starts the program in the world's folder with the words of `line`, parted by blanks. */
static pid_t start(const struct world *w, const char *line, int in_fd)
{
    char *copy = strdup(line), *words[WORDS_MAX] = { PROGRAM }, *rest = copy;
    int count = 1;
    while ((words[count] = strsep(&rest, " "))) {
        if (*words[count]) assert_true(++count < WORDS_MAX);
    }
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (chdir(w->folder) != 0) _exit(99);
        const int out_fd = open("stdout", O_CREAT | O_TRUNC | O_WRONLY, 0644);
        const int words_fd = open("stderr", O_CREAT | O_TRUNC | O_WRONLY, 0644);
        if (dup2(in_fd, 0) < 0 || dup2(out_fd, 1) < 0 || dup2(words_fd, 2) < 0) _exit(99);
        execv(PROGRAM, words);
        _exit(98);
    }
    free(copy);
    return pid;
}

/* The exit code, or 1000 + the signal that ended it. */
static int finish(struct world *w, pid_t pid)
{
    int state = 0;
    size_t count = 0;
    assert_int_equal(waitpid(pid, &state, 0), pid);
    free(w->output);
    w->output = read_file(w, "stdout", &w->output_bytes);
    char *words = read_file(w, "stderr", &count);
    snprintf(w->words, sizeof w->words, "%s", words);
    free(words);
    return WIFEXITED(state) ? WEXITSTATUS(state) : 1000 + WTERMSIG(state);
}

static int run_fed(struct world *w, const void *bytes, size_t count, const char *line)
{
    write_file(w, "stdin", bytes, count);
    char *path = path_of(w, "stdin");
    const int in_fd = open(path, O_RDONLY | O_CLOEXEC);
    const int code = finish(w, start(w, line, in_fd));
    close(in_fd);
    free(path);
    return code;
}

static int run(struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int run(struct world *w, const char *format, ...)
{
    char line[2048];
    va_list list;
    va_start(list, format);
    vsnprintf(line, sizeof line, format, list);
    va_end(list);
    return run_fed(w, w->frames, (size_t)FRAMES * FRAME_BYTES, line);
}

/* The option words of a film of `frames` frames. */
static const char *film(struct world *w, const struct film_kind *kind, int frames)
{
    snprintf(w->film, sizeof w->film, "encode --width %d --height %d --frames %d --fps 8 --format %s%s%s", SIDE, SIDE,
             frames, kind->format, kind->codec ? " --codec " : "", kind->codec ? kind->codec : "");
    return w->film;
}

/* Likewise of an image of the first frame. */
static const char *image(struct world *w, const struct image_kind *kind)
{
    snprintf(w->film, sizeof w->film, "image --width %d --height %d --format %s", SIDE, SIDE, kind->format);
    return w->film;
}

static int run_image(struct world *w, const struct image_kind *kind, const char *options)
{
    char line[400];
    snprintf(line, sizeof line, "%s %s", image(w, kind), options);
    return run_fed(w, w->frames, FRAME_BYTES, line);
}

static bool is_installed(const struct world *w, const struct film_kind *kind)
{
    char key[16];
    snprintf(key, sizeof key, "\"%s\":", kind->codec ? kind->codec : "gif");
    return strstr(w->codecs, key) != NULL;
}

static int entries(const struct world *w, const char *name)
{
    char *path = path_of(w, name);
    DIR *folder = opendir(path);
    free(path);
    if (!folder) return -1;
    int count = -2;
    while (readdir(folder)) count++;
    closedir(folder);
    return count;
}

static void see_nothing_left(const struct world *w)
{
    assert_int_equal(entries(w, "out"), 0);
}

/* The run failed with this code, one line on standard error that says all of this, and left nothing. */
static void see_failure(const struct world *w, int code, int wanted, const char *says, const char *and)
{
    if (code != wanted || !strstr(w->words, says) || !strstr(w->words, and)) {
        fail_msg("exit %d (wanted %d), words: %s (wanted: %s, %s)", code, wanted, w->words, says, and);
    }
    assert_ptr_equal(strchr(w->words, '\n'), w->words + strlen(w->words) - 1);
    see_nothing_left(w);
}

static void clear_out(const struct world *w)
{
    char line[200];
    snprintf(line, sizeof line, "rm -rf %s/out && mkdir %s/out", w->folder, w->folder);
    assert_int_equal(system(line), 0);
}

static int world_begin(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    strcpy(w->folder, "/tmp/weir-test-encode-XXXXXX");
    assert_non_null(mkdtemp(w->folder));
    clear_out(w);
    w->frames = malloc((size_t)FRAMES * FRAME_BYTES);
    for (int i = 0; i < FRAMES; i++) draw(w->frames + (size_t)i * FRAME_BYTES, i);
    write_file(w, "receipt.json", RECEIPT, strlen(RECEIPT));
    assert_int_equal(run(w, "version"), 0);
    w->codecs = strdup(w->output);
    *state = w;
    return 0;
}

static int world_end(void **state)
{
    struct world *w = *state;
    char line[200];
    snprintf(line, sizeof line, "rm -rf %s", w->folder);
    const int code = system(line);
    free(w->frames);
    free(w->codecs);
    free(w->output);
    free(w);
    return code;
}

/* Mean over the pixels well inside the disc, all channels, all frames: away from its edge, where chroma is shared. */
static double flat_error(const struct world *w)
{
    uint64_t sum = 0, count = 0;
    for (int frame = 0; frame < FRAMES; frame++) {
        for (int y = 54; y < 74; y++) {
            for (int x = 20 + 4 * frame; x < 40 + 4 * frame; x++) {
                const size_t at = ((size_t)frame * SIDE * SIDE + (size_t)(y * SIDE + x)) * 3;
                for (int c = 0; c < 3; c++, count++) {
                    sum += (uint64_t)abs(w->frames[at + (size_t)c] - (uint8_t)w->output[at + (size_t)c]);
                }
            }
        }
    }
    return (double)sum / (double)count;
}

static void every_format_gives_back_its_frames_and_receipt(void **state)
{
    struct world *w = *state;
    int tried = 0;
    for (size_t i = 0; i < WEIR_COUNT(kinds); i++) {
        if (!is_installed(w, &kinds[i])) continue;
        assert_int_equal(run(w, "%s --metadata receipt.json -o out/film", film(w, &kinds[i], FRAMES)), 0);
        assert_int_equal(entries(w, "out"), 1);
        assert_string_equal(w->words, "");
        assert_int_equal(run(w, "probe out/film"), 0);
        assert_non_null(strstr(w->output, "\"width\":128,\"height\":128,\"frames\":16,"));
        assert_non_null(strstr(w->output, "\"comment\":\"{\\\"prompt\\\":\\\"ein roter Kreis \xe2\x97\x8f\\\","
                                          "\\\"seed\\\":7}\\n\""));
        if (kinds[i].codec) assert_non_null(strstr(w->output, "\"fps\":8.0,\"duration_s\":2.0,"));
        assert_int_equal(run(w, "probe --raw out/film"), 0);
        assert_int_equal(w->output_bytes, FRAMES * FRAME_BYTES);
        const double error = flat_error(w);
        print_message("%s %s: flat red is off by %.3f of 255\n", kinds[i].format, kinds[i].codec ? kinds[i].codec : "",
                      error);
        assert_true(error <= kinds[i].flat_error_max);
        clear_out(w);
        tried++;
    }
    assert_true(tried >= 3); /* gif, png and at least one film codec */
}

/* The receipt's largest size, in every format, byte for byte; one more byte is refused. */
static void a_receipt_of_64_kib_is_carried_and_a_larger_one_refused(void **state)
{
    struct world *w = *state;
    char *receipt = malloc(65538);
    memset(receipt, 'x', 65538);
    memcpy(receipt, "{\"a\":\"", 6);
    memcpy(receipt + 65534, "\"}", 2);
    write_file(w, "large.json", receipt, 65536);
    for (size_t i = 0; i < WEIR_COUNT(kinds); i++) {
        if (!is_installed(w, &kinds[i])) continue;
        assert_int_equal(run(w, "%s --metadata large.json -o out/film", film(w, &kinds[i], FRAMES)), 0);
        assert_int_equal(run(w, "probe out/film"), 0);
        const char *comment = strstr(w->output, "{\\\"a\\\":\\\"");
        assert_non_null(comment);
        assert_int_equal(strspn(comment + 9, "x"), 65536 - 8);
        clear_out(w);
    }
    memcpy(receipt + 65534, "x\"}", 3);
    write_file(w, "large.json", receipt, 65537);
    int code = run(w, "%s --metadata large.json -o out/film", film(w, &kinds[5], FRAMES));
    see_failure(w, code, 64, "large.json", "65536");
    free(receipt);
}

static void every_image_gives_back_its_pixels_and_receipt(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < WEIR_COUNT(images); i++) {
        assert_int_equal(run_image(w, &images[i], "--metadata receipt.json -o out/image"), 0);
        assert_int_equal(entries(w, "out"), 1);
        assert_string_equal(w->words, "");
        assert_int_equal(run(w, "probe out/image"), 0);
        char head[40];
        snprintf(head, sizeof head, "{\"format\":\"%s\",", images[i].format);
        assert_int_equal(strncmp(w->output, head, strlen(head)), 0);
        assert_non_null(strstr(w->output, "\"width\":128,\"height\":128,\"frames\":1,"));
        assert_non_null(strstr(w->output, "\"comment\":\"{\\\"prompt\\\":"));
        assert_int_equal(run(w, "probe --receipt out/image"), 0);
        assert_string_equal(w->output, RECEIPT);
        assert_int_equal(run(w, "probe --raw out/image"), 0);
        assert_int_equal(w->output_bytes, FRAME_BYTES);
        uint64_t error = 0;
        for (size_t k = 0; k < FRAME_BYTES; k++) error += (uint64_t)abs(w->frames[k] - (uint8_t)w->output[k]);
        print_message("%s: off by %.3f of 255\n", images[i].format, (double)error / FRAME_BYTES);
        if (images[i].is_exact) assert_int_equal(error, 0);
        assert_true((double)error / FRAME_BYTES < 1);
        clear_out(w);
    }
}

/* Also a receipt that is shorter than a pointer, which EXIF keeps elsewhere; and none. */
static void an_images_receipt_is_carried_up_to_its_limit(void **state)
{
    struct world *w = *state;
    char *receipt = malloc(65537);
    for (size_t i = 0; i < WEIR_COUNT(images); i++) {
        const size_t sizes[] = { 2, 3, 4, 5, images[i].receipt_bytes_max };
        for (size_t k = 0; k < WEIR_COUNT(sizes); k++) {
            memset(receipt, ' ', 65537);
            memcpy(receipt, "{}", 2);
            write_file(w, "large.json", receipt, sizes[k]);
            assert_int_equal(run_image(w, &images[i], "--metadata large.json -o out/image"), 0);
            assert_int_equal(run(w, "probe --receipt out/image"), 0);
            assert_int_equal(w->output_bytes, sizes[k]);
            assert_memory_equal(w->output, receipt, sizes[k]);
            clear_out(w);
        }
        char limit[16];
        snprintf(limit, sizeof limit, "%zu", images[i].receipt_bytes_max);
        write_file(w, "large.json", receipt, images[i].receipt_bytes_max + 1);
        see_failure(w, run_image(w, &images[i], "--metadata large.json -o out/image"), 64, "", limit);
        assert_int_equal(run_image(w, &images[i], "-o out/image"), 0);
        assert_int_equal(run(w, "probe out/image"), 0);
        assert_non_null(strstr(w->output, "\"comment\":null"));
        assert_int_equal(run(w, "probe --receipt out/image"), 74);
        assert_non_null(strstr(w->words, "out/image: carries no receipt"));
        clear_out(w);
    }
    free(receipt);
}

static void equal_frames_give_equal_images(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < WEIR_COUNT(images); i++) {
        size_t first_bytes, second_bytes;
        assert_int_equal(run_image(w, &images[i], "--metadata receipt.json -o out/image"), 0);
        char *first = read_file(w, "out/image", &first_bytes);
        assert_int_equal(run_image(w, &images[i], "--metadata receipt.json -o out/image"), 0); /* over the first one */
        char *second = read_file(w, "out/image", &second_bytes);
        assert_int_equal(entries(w, "out"), 1);
        assert_int_equal(first_bytes, second_bytes);
        assert_memory_equal(first, second, first_bytes);
        free(first);
        free(second);
        clear_out(w);
    }
}

/* Cut anywhere it is refused; with wrong bits it is refused or read; nothing crashes. */
static void damaged_images_are_refused(void **state)
{
    struct world *w = *state;
    uint32_t random = 1;
    for (size_t i = 0; i < WEIR_COUNT(images); i++) {
        size_t bytes;
        assert_int_equal(run_image(w, &images[i], "--metadata receipt.json -o whole"), 0);
        char *whole = read_file(w, "whole", &bytes), *damaged = malloc(bytes);
        for (size_t cut = 0; cut < bytes; cut += cut < 64 ? 7 : bytes / 23 + 1) {
            write_file(w, "damaged", whole, cut);
            see_failure(w, run(w, "probe damaged"), 74, "damaged: ", "");
        }
        write_file(w, "damaged", whole, bytes - 1);
        see_failure(w, run(w, "probe --raw damaged"), 74, "damaged: ", "");
        for (int trial = 0; trial < 40; trial++) {
            memcpy(damaged, whole, bytes);
            for (int k = 0; k < 1 + trial / 4; k++) {
                random = random * 1664525 + 1013904223;
                const size_t reach = trial % 2 ? bytes : 200 < bytes ? 200 : bytes; /* half of them in the headers */
                damaged[(random >> 8) % reach] ^= (char)(1 << (random >> 29));
            }
            write_file(w, "damaged", damaged, bytes);
            int code = run(w, "probe --raw damaged");
            if (code != 0 && code != 74) fail_msg("probe: %d: %s", code, w->words);
            code = run(w, "probe --receipt damaged");
            if (code != 0 && code != 74) fail_msg("probe --receipt: %d: %s", code, w->words);
        }
        free(whole);
        free(damaged);
    }
    write_file(w, "damaged", "no picture at all, but long enough", 34);
    see_failure(w, run(w, "probe damaged"), 74, "damaged", "nor a picture");
    see_failure(w, run(w, "probe absent"), 74, "absent", "No such file");
}

static uint32_t crc32_of(const uint8_t *bytes, size_t count)
{
    uint32_t crc = ~0u;
    for (size_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

/* A few bytes that promise 16,000 x 16,000 pixels, and a file of 300 MiB that holds nothing. */
static void huge_images_are_refused(void **state)
{
    struct world *w = *state;
    size_t bytes;
    assert_int_equal(run_image(w, &images[0], "-o whole"), 0);
    char *png = read_file(w, "whole", &bytes);
    png[18] = png[22] = 16000 >> 8;
    png[19] = png[23] = (char)(16000 & 255);
    const uint32_t crc = crc32_of((const uint8_t *)png + 12, 17);
    for (int k = 0; k < 4; k++) png[29 + k] = (char)(crc >> (24 - 8 * k));
    write_file(w, "huge", png, bytes);
    see_failure(w, run(w, "probe huge"), 74, "huge: PNG: ", "");
    see_failure(w, run(w, "probe --receipt huge"), 74, "huge: PNG: ", "");
    free(png);

    assert_int_equal(run_image(w, &images[1], "-o whole"), 0);
    char *jpeg = read_file(w, "whole", &bytes), *frame = memmem(jpeg, bytes, "\xff\xc0\x00\x11\x08", 5);
    assert_non_null(frame);
    frame[5] = frame[7] = 16000 >> 8;
    frame[6] = frame[8] = (char)(16000 & 255);
    write_file(w, "huge", jpeg, bytes);
    see_failure(w, run(w, "probe huge"), 74, "huge: ", "8192");
    free(jpeg);

    assert_int_equal(run_image(w, &images[2], "-o whole"), 0); /* VP8L: 14 bits of width - 1, 14 of height - 1 */
    char *webp = read_file(w, "whole", &bytes);
    assert_memory_equal(webp + 12, "VP8L", 4);
    const uint32_t sides = 15999u | 15999u << 14;
    const uint32_t flags = (uint32_t)(uint8_t)webp[24] << 24 & 0xf0000000u;
    for (int k = 0; k < 4; k++) webp[21 + k] = (char)((sides | flags) >> (8 * k) & 255);
    write_file(w, "huge", webp, bytes);
    see_failure(w, run(w, "probe huge"), 74, "huge: ", "8192");
    free(webp);

    char *path = path_of(w, "huge");
    write_file(w, "huge", "\x89PNG\r\n\x1a\n and more", 17);
    assert_int_equal(truncate(path, (off_t)300 << 20), 0);
    see_failure(w, run(w, "probe huge"), 64, "huge: ", "268435456");
    unlink(path);
    free(path);
}

static void an_image_takes_the_bytes_of_one_frame(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < WEIR_COUNT(images); i++) {
        char line[300];
        snprintf(line, sizeof line, "%s -o out/image", image(w, &images[i]));
        see_failure(w, run_fed(w, w->frames, 0, line), 74, " 0 bytes", "49152");
        see_failure(w, run_fed(w, w->frames, FRAME_BYTES - 1, line), 74, "49151", "49152");
        see_failure(w, run_fed(w, w->frames, FRAME_BYTES + 1, line), 74, "49153", "49152");
    }
}

static void a_receipt_that_is_no_json_object_is_refused(void **state)
{
    struct world *w = *state;
    const struct {
        const char *bytes;
        size_t count;
    } bad[] = { { "", 0 },
                { "{\"a\":1", 6 },
                { "[1]", 3 },
                { "{\"a\":\"\0\"}", 9 },
                { "{\"a\":\"\xff\"}", 9 },
                { "{\"a\":1,\"a\":2}", 13 },
                { "{}{}", 4 } };
    for (size_t i = 0; i < WEIR_COUNT(bad); i++) {
        write_file(w, "bad.json", bad[i].bytes, bad[i].count);
        const int code = run(w, "%s --metadata bad.json -o out/film", film(w, &kinds[5], FRAMES));
        see_failure(w, code, 74, "bad.json", "JSON");
    }
    see_failure(w, run(w, "%s --metadata no.json -o out/film", film(w, &kinds[5], FRAMES)), 74, "no.json", "");
}

static void equal_frames_give_equal_bytes(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < WEIR_COUNT(kinds); i++) {
        if (!is_installed(w, &kinds[i]) || strcmp(kinds[i].format, "png") == 0) continue;
        size_t bytes[2];
        char *films[2];
        for (int k = 0; k < 2; k++) {
            assert_int_equal(run(w, "%s --metadata receipt.json -o out/film", film(w, &kinds[i], FRAMES)), 0);
            films[k] = read_file(w, "out/film", &bytes[k]);
        }
        assert_int_equal(bytes[0], bytes[1]);
        assert_memory_equal(films[0], films[1], bytes[0]);
        free(films[0]);
        free(films[1]);
        clear_out(w);
    }
}

/* Cuts the 16 frames into segments, joins them, and compares decoded frames; and the joined bytes of two joins. */
static void see_join(struct world *w, const struct film_kind *kind, const int *lengths, int count)
{
    char names[256] = "";
    uint8_t *decoded = malloc((size_t)FRAMES * FRAME_BYTES);
    size_t at = 0;
    for (int i = 0, first = 0; i < count; first += lengths[i++]) {
        char line[300];
        snprintf(line, sizeof line, "%s --segment -o out/s%d", film(w, kind, lengths[i]), i);
        const uint8_t *frames = w->frames + (size_t)first * FRAME_BYTES;
        assert_int_equal(run_fed(w, frames, (size_t)lengths[i] * FRAME_BYTES, line), 0);
        assert_int_equal(run(w, "probe --raw out/s%d", i), 0);
        assert_true(at + w->output_bytes <= (size_t)FRAMES * FRAME_BYTES);
        memcpy(decoded + at, w->output, w->output_bytes);
        at += w->output_bytes;
        snprintf(names + strlen(names), sizeof names - strlen(names), " out/s%d", i);
    }
    assert_int_equal(run(w, "join --format %s --metadata receipt.json -o out/film%s", kind->format, names), 0);
    assert_int_equal(run(w, "probe --raw out/film"), 0);
    assert_int_equal(w->output_bytes, at);
    assert_memory_equal(w->output, decoded, at);
    assert_int_equal(run(w, "probe out/film"), 0);
    assert_non_null(strstr(w->output, "\"frames\":16,\"fps\":8.0,\"duration_s\":2.0,"));
    assert_non_null(strstr(w->output, "roter Kreis"));

    size_t bytes, bytes_again;
    assert_int_equal(run(w, "join --format %s --metadata receipt.json -o out/again%s", kind->format, names), 0);
    char *joined = read_file(w, "out/film", &bytes), *again = read_file(w, "out/again", &bytes_again);
    assert_int_equal(bytes, bytes_again);
    assert_memory_equal(joined, again, bytes);
    if (count == 1 && kind->codec && strcmp(kind->codec, "h264") == 0) {
        assert_int_equal(run(w, "%s --metadata receipt.json -o out/whole", film(w, kind, FRAMES)), 0);
        char *whole = read_file(w, "out/whole", &bytes_again);
        assert_int_equal(bytes, bytes_again);
        assert_memory_equal(joined, whole, bytes);
        free(whole);
    }
    free(joined);
    free(again);
    free(decoded);
    clear_out(w);
}

static void one_two_and_five_segments_join_to_the_frames_they_hold(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < WEIR_COUNT(kinds); i++) {
        if (!kinds[i].codec || !is_installed(w, &kinds[i])) continue;
        see_join(w, &kinds[i], (int[]){ 16 }, 1);
        see_join(w, &kinds[i], (int[]){ 9, 7 }, 2);
        see_join(w, &kinds[i], (int[]){ 4, 1, 6, 3, 2 }, 5);
    }
}

static const struct film_kind *first_film_kind(const struct world *w)
{
    for (size_t i = 0; i < WEIR_COUNT(kinds); i++) {
        if (kinds[i].codec && is_installed(w, &kinds[i])) return &kinds[i];
    }
    fail_msg("no film codec is installed");
    return NULL;
}

static void segments_that_differ_are_refused_by_name(void **state)
{
    struct world *w = *state;
    const struct film_kind *kind = first_film_kind(w);
    char base[160];
    snprintf(base, sizeof base, "--frames 4 --format %s --codec %s --segment -o", kind->format, kind->codec);
    const struct {
        const char *name, *options, *says;
    } others[] = { { "wide", "--width 256 --height 128 --fps 8", "the width is 256" },
                   { "high", "--width 128 --height 160 --fps 8", "the height is 160" },
                   { "fast", "--width 128 --height 128 --fps 9", "the rate in frames a second is 9" } };
    uint8_t *blank = calloc(4, 256 * 160 * 3);
    char line[300];
    snprintf(line, sizeof line, "encode --width 128 --height 128 --fps 8 %s first", base);
    assert_int_equal(run_fed(w, w->frames, 4 * FRAME_BYTES, line), 0);
    for (size_t i = 0; i < WEIR_COUNT(others); i++) {
        const size_t pixels = i == 0 ? 256 * 128 : i == 1 ? 128 * 160 : 128 * 128;
        snprintf(line, sizeof line, "encode %s %s %s", others[i].options, base, others[i].name);
        assert_int_equal(run_fed(w, blank, 4 * pixels * 3, line), 0);
        const int code = run(w, "join --format %s -o out/film first %s", kind->format, others[i].name);
        see_failure(w, code, 74, others[i].name, others[i].says);
    }
    free(blank);
    write_file(w, "text", "this is no film at all", 22);
    write_file(w, "empty", "", 0);
    see_failure(w, run(w, "join --format mp4 -o out/film first text"), 74, "text", "neither MP4");
    see_failure(w, run(w, "join --format mp4 -o out/film first empty"), 74, "empty", "neither MP4");
    see_failure(w, run(w, "join --format mp4 -o out/film first absent"), 74, "absent", "No such file");
    const char *other = strcmp(kind->format, "mp4") == 0 ? "webm" : "mp4";
    see_failure(w, run(w, "join --format %s -o out/film first", other), 74, "first", "--format is");
    for (size_t i = 0; i < WEIR_COUNT(kinds); i++) {
        if (!kinds[i].codec || strcmp(kinds[i].format, kind->format) != 0 || &kinds[i] == kind) continue;
        if (!is_installed(w, &kinds[i])) continue;
        snprintf(line, sizeof line, "%s --segment -o other", film(w, &kinds[i], 4));
        assert_int_equal(run_fed(w, w->frames, 4 * FRAME_BYTES, line), 0);
        see_failure(w, run(w, "join --format %s -o out/film first other", kind->format), 74, "other", "the codec is");
    }
}

static void a_segment_cut_short_anywhere_is_refused_by_name(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < WEIR_COUNT(kinds); i++) {
        if (!kinds[i].codec || !is_installed(w, &kinds[i])) continue;
        size_t bytes;
        assert_int_equal(run(w, "%s --segment -o whole", film(w, &kinds[i], FRAMES)), 0);
        char *whole = read_file(w, "whole", &bytes);
        for (size_t part = 1; part < 8; part++) {
            write_file(w, "short", whole, bytes * part / 8);
            see_failure(w, run(w, "join --format %s -o out/film whole short", kinds[i].format), 74, "short", "");
        }
        free(whole);
    }
}

/* Whatever the damage, probe and join say so or succeed; they never crash. Seeded: the same bytes every time. */
static void damaged_films_never_crash_a_reader(void **state)
{
    struct world *w = *state;
    uint32_t random = 1;
    for (size_t i = 0; i < WEIR_COUNT(kinds); i++) {
        if (!is_installed(w, &kinds[i]) || strcmp(kinds[i].format, "png") == 0) continue;
        size_t bytes;
        assert_int_equal(run(w, "%s --metadata receipt.json -o whole", film(w, &kinds[i], FRAMES)), 0);
        char *whole = read_file(w, "whole", &bytes), *damaged = malloc(bytes);
        for (int trial = 0; trial < 10; trial++) {
            memcpy(damaged, whole, bytes);
            for (int k = 0; k < 1 + trial; k++) {
                random = random * 1664525 + 1013904223;
                const size_t reach = trial % 2 ? bytes : 600 < bytes ? 600 : bytes; /* half of them in the headers */
                damaged[(random >> 8) % reach] ^= (char)(1 << (random >> 29));
            }
            write_file(w, "damaged", damaged, bytes);
            int code = run(w, "probe --frames damaged");
            if (code != 0 && code != 74 && code != 71) fail_msg("probe: %d: %s", code, w->words);
            if (!kinds[i].codec) continue;
            code = run(w, "join --format %s -o out/film damaged", kinds[i].format);
            if (code != 0 && code != 74 && code != 70 && code != 71) fail_msg("join: %d: %s", code, w->words);
            if (code != 0) see_nothing_left(w);
            clear_out(w);
        }
        free(whole);
        free(damaged);
    }
}

static void too_few_and_too_many_bytes_are_refused_with_both_counts(void **state)
{
    struct world *w = *state;
    const size_t all = (size_t)FRAMES * FRAME_BYTES;
    uint8_t *more = calloc(1, all + 1);
    for (size_t i = 0; i < WEIR_COUNT(kinds); i++) {
        if (!is_installed(w, &kinds[i])) continue;
        char line[300];
        snprintf(line, sizeof line, "%s -o out/film", film(w, &kinds[i], FRAMES));
        see_failure(w, run_fed(w, more, 0, line), 74, " 0 bytes", "786432");
        see_failure(w, run_fed(w, more, all - 1, line), 74, "786431", "786432");
        see_failure(w, run_fed(w, more, all + 1, line), 74, "786433", "786432");
        assert_int_equal(run_fed(w, more, all, line), 0);
        clear_out(w);
    }
    free(more);
}

static void every_limit_names_its_flag_and_both_sides_hold(void **state)
{
    struct world *w = *state;
    const struct {
        const char *flag, *good[2], *bad[3];
    } limits[] = { { "width", { "1", "8192" }, { "0", "8193", "x" } },
                   { "height", { "1", "8192" }, { "0", "8193", "-1" } },
                   { "frames", { "1", "100000" }, { "0", "100001", "1.5" } },
                   { "fps", { "1", "50" }, { "0", "241", "51" } } };
    for (size_t i = 0; i < WEIR_COUNT(limits); i++) {
        char line[400], flag[16];
        /* a flag that is given twice counts the last time */
        const char *of = "encode --width 64 --height 64 --frames 2 --fps 8 --format gif -o out/film";
        snprintf(flag, sizeof flag, "--%s ", limits[i].flag);
        for (int k = 0; k < 2; k++) { /* taken: the run gets as far as counting the input, which is empty */
            snprintf(line, sizeof line, "%s %s%s", of, flag, limits[i].good[k]);
            see_failure(w, run_fed(w, "", 0, line), 74, "standard input: 0 bytes", "");
        }
        for (int k = 0; k < 3; k++) {
            snprintf(line, sizeof line, "%s %s%s", of, flag, limits[i].bad[k]);
            see_failure(w, run_fed(w, "", 0, line), 64, flag, limits[i].bad[k]);
        }
    }
}

static void command_lines_that_make_no_sense_are_refused(void **state)
{
    struct world *w = *state;
    const struct {
        const char *line, *says, *and;
    } bad[] = {
        { "", "encode", "join" },
        { "transcode", "transcode", "probe" },
        { "encode --width 64 --height 64 --frames 1 --fps 8 --format mp4", "--output", "missing" },
        { "encode --width 64 --height 64 --frames 1 --fps 8 --format avi -o out/f", "--format avi",
          "mp4|webm|gif|png" },
        { "encode --width 63 --height 64 --frames 1 --fps 8 --format mp4 -o out/f", "--width 63", "even" },
        { "encode --width 64 --height 63 --frames 1 --fps 8 --format webm -o out/f", "--height 63", "even" },
        { "encode --width 64 --height 64 --frames 1 --fps 8 --format webm --codec h264 -o out/f", "--codec h264",
          "webm" },
        { "encode --width 64 --height 64 --frames 1 --fps 8 --format png --codec h264 -o out/f", "--codec h264",
          "png" },
        { "encode --width 64 --height 64 --frames 1 --fps 8 --format gif --segment -o out/f", "--segment", "gif" },
        { "encode --width 64 --height 64 --frames 1 --fps 8 --format mp4 --segment --metadata receipt.json -o out/f",
          "--metadata", "join" },
        { "encode --width 64 --height 64 --frames 1 --fps 8 --format gif -o out/f extra", "1 file names", "0" },
        { "join --format mp4 -o out/f", "0 file names", "1" },
        { "join --format gif -o out/f stdin", "--format gif", "mp4|webm" },
        { "probe --raw --frames stdin", "--raw", "--frames" },
        { "probe --receipt --frames stdin", "--receipt", "--frames" },
        { "image --width 64 --height 64 --format gif -o out/f", "--format gif", "png|jpeg|webp" },
        { "image --width 64 --height 64 --format png", "--output", "missing" },
        { "image --width 8193 --height 64 --format webp -o out/f", "--width 8193", "8192" },
        { "image --width 64 --height 64 --format png --frames 2 -o out/f", "--frames", "" },
        { "image --width 64 --height 64 --format png -o out", "-o out", "folder" },
        { "encode --width 64 --height 64 --frames 1 --fps 8 --format gif -o out/", "out/", "name" },
        { "encode --width 64 --height 64 --frames 1 --fps 8 --format gif -o out", "-o out", "folder" },
        { "encode --width 64 --height 64 --frames 1 --fps 8 --format png -o stdin", "-o stdin", "file" },
        { "encode --width 64 --height 64 --frames 1 --fps 8 --format png -o .", "-o .", "name" },
    };
    for (size_t i = 0; i < WEIR_COUNT(bad); i++) see_failure(w, run(w, "%s", bad[i].line), 64, bad[i].says, bad[i].and);
    assert_int_equal(run(w, "--help"), 0);
    assert_non_null(strstr(w->output, "--metadata FILE"));
}

/* Where its neighbour is missing, it makes images, and says what it would need for all else. */
static void images_need_no_neighbour(void **state)
{
    struct world *w = *state;
    size_t count;
    char *program = path_of(w, "weir-encode"), *bytes = NULL, line[512];
    assert_int_equal(weir_file_read(PROGRAM, (size_t)1 << 28, &bytes, &count, NULL), WEIR_OK);
    write_file(w, "weir-encode", bytes, count);
    free(bytes);
    assert_int_equal(chmod(program, 0700), 0);
    write_file(w, "frame", "123456789012", 12);
    snprintf(line, sizeof line, "cd %s && ./weir-encode image --width 2 --height 2 --format jpeg -o out/alone < frame",
             w->folder);
    assert_int_equal(system(line), 0);
    free(read_file(w, "out/alone", &count));
    assert_true(count > 100);
    snprintf(line, sizeof line, "cd %s && ./weir-encode version 2> said", w->folder);
    const int code = system(line);
    assert_int_equal(WEXITSTATUS(code), 70);
    bytes = read_file(w, "said", &count);
    assert_non_null(strstr(bytes, "/weir-encode-film: No such file or directory; it belongs beside weir-encode\n"));
    free(bytes);
    clear_out(w);
    static const char *const left[] = { "weir-encode", "frame", "said" };
    for (size_t i = 0; i < WEIR_COUNT(left); i++) {
        char *path = path_of(w, left[i]);
        unlink(path);
        free(path);
    }
    free(program);
}

static void a_folder_of_pictures_is_never_mixed_with_what_was_there(void **state)
{
    struct world *w = *state;
    assert_int_equal(run(w, "%s -o out/pictures", film(w, &kinds[6], FRAMES)), 0);
    assert_int_equal(entries(w, "out/pictures"), FRAMES);
    assert_int_equal(run(w, "%s -o out/pictures", film(w, &kinds[6], FRAMES)), 64);
    assert_non_null(strstr(w->words, "not empty"));
    assert_int_equal(entries(w, "out"), 1);
    clear_out(w);
}

static void a_folder_that_cannot_be_written_is_a_clear_error(void **state)
{
    struct world *w = *state;
    see_failure(w, run(w, "%s -o nowhere/film", film(w, &kinds[5], FRAMES)), 75, "nowhere/film", "No such file");
    see_failure(w, run(w, "%s -o receipt.json/film", film(w, &kinds[5], FRAMES)), 75, "receipt.json", "Not a dir");
    see_failure(w, run(w, "%s -o /proc/self/film", film(w, &kinds[5], FRAMES)), 75, "/proc/self/film", "");
    see_failure(w, run(w, "%s -o /proc/self/film", film(w, &kinds[6], FRAMES)), 75, "/proc/self/film", "");
}

static uint8_t *noise_of(size_t count)
{
    uint8_t *noise = malloc(count);
    uint32_t random = 1;
    for (size_t i = 0; i < count; i++) noise[i] = (uint8_t)((random = random * 1664525 + 1013904223) >> 24);
    return noise;
}

static void a_file_over_its_limit_leaves_nothing(void **state)
{
    struct world *w = *state;
    const size_t count = (size_t)8 * 512 * 512 * 3;
    uint8_t *noise = noise_of(count);
    const struct film_kind *some[] = { first_film_kind(w), &kinds[5] }; /* a PNG of this noise has 768 KiB: within it */
    for (size_t i = 0; i < WEIR_COUNT(some); i++) {
        char line[300];
        snprintf(line, sizeof line,
                 "encode --width 512 --height 512 --frames 8 --fps 8 --format %s --file-mib 1 -o "
                 "out/film",
                 some[i]->format);
        see_failure(w, run_fed(w, noise, count, line), 75, "out/film", "File too large");
    }
    for (size_t i = 0; i < WEIR_COUNT(images); i++) {
        char line[300];
        snprintf(line, sizeof line, "image --width 1024 --height 1024 --format %s --file-mib 1 -o out/image",
                 images[i].format);
        see_failure(w, run_fed(w, noise, (size_t)1024 * 1024 * 3, line), 75, "out/image", "File too large");
    }
    free(noise);
}

/* In a child with mounts of its own: 256 KiB of tmpfs as `out`. 0 held, 1 not, 77 mounting is not allowed here. */
static int fill_the_disk(struct world *w)
{
    char *out = path_of(w, "out");
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) return 77;
    if (mount("tmpfs", out, "tmpfs", 0, "size=256k") != 0) return 77;
    free(out);
    const size_t count = (size_t)4 * 512 * 512 * 3;
    uint8_t *noise = noise_of(count);
    const struct film_kind *some[] = { first_film_kind(w), &kinds[5], &kinds[6] };
    int bad = 0;
    for (size_t i = 0; i < WEIR_COUNT(some) + WEIR_COUNT(images); i++) {
        char line[300];
        const bool is_image = i >= WEIR_COUNT(some);
        if (is_image) {
            snprintf(line, sizeof line, "image --width 512 --height 512 --format %s -o out/film",
                     images[i - WEIR_COUNT(some)].format);
        } else {
            snprintf(line, sizeof line, "encode --width 512 --height 512 --frames 4 --fps 8 --format %s -o out/film",
                     some[i]->format);
        }
        const int code = run_fed(w, noise, is_image ? count / 4 : count, line);
        bad |= code != 75 || !strstr(w->words, "No space left on device") || entries(w, "out") != 0;
        if (bad) printf("%s: exit %d, %d entries: %s\n", line, code, entries(w, "out"), w->words);
    }
    free(noise);
    return bad;
}

static void a_full_disk_leaves_nothing(void **state)
{
    struct world *w = *state;
    int result = 0;
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0) {
        const int held = fill_the_disk(w);
        fflush(stdout);
        _exit(held);
    }
    assert_int_equal(waitpid(pid, &result, 0), pid);
    assert_true(WIFEXITED(result));
    if (WEXITSTATUS(result) == 77) skip();
    assert_int_equal(WEXITSTATUS(result), 0);
}

/* Feeds so many bytes, fewer than it wants, and waits until the program has taken them all. */
static pid_t start_fed(struct world *w, const char *line, size_t count, int *feed_fd)
{
    int ends[2], waiting = 1;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    const pid_t pid = start(w, line, ends[0]);
    close(ends[0]);
    assert_int_equal(weir_fd_write(ends[1], w->frames, count, "pipe", NULL), WEIR_OK);
    const uint64_t end_ms = weir_clock_now_ms() + WAIT_MS;
    while (ioctl(ends[1], FIONREAD, &waiting) == 0 && waiting > 0) {
        assert_true(weir_clock_now_ms() < end_ms);
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    }
    *feed_fd = ends[1];
    return pid;
}

static pid_t start_half_fed(struct world *w, const struct film_kind *kind, int *feed_fd)
{
    char line[300];
    snprintf(line, sizeof line, "%s -o out/film", film(w, kind, FRAMES));
    return start_fed(w, line, FRAMES / 2 * FRAME_BYTES, feed_fd);
}

static void an_interrupted_image_leaves_nothing(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < WEIR_COUNT(images); i++) {
        char line[300];
        int feed_fd;
        snprintf(line, sizeof line, "%s -o out/image", image(w, &images[i]));
        const pid_t pid = start_fed(w, line, FRAME_BYTES / 2, &feed_fd);
        kill(pid, SIGTERM);
        see_failure(w, finish(w, pid), 130, "interrupted", "");
        close(feed_fd);
    }
}

static void an_interrupted_encode_leaves_nothing(void **state)
{
    struct world *w = *state;
    const int signals[] = { SIGTERM, SIGINT, SIGHUP };
    for (size_t i = 0; i < WEIR_COUNT(kinds); i++) {
        if (!is_installed(w, &kinds[i])) continue;
        for (size_t k = 0; k < WEIR_COUNT(signals); k++) {
            int feed_fd;
            const pid_t pid = start_half_fed(w, &kinds[i], &feed_fd);
            kill(pid, signals[k]);
            see_failure(w, finish(w, pid), 130, "interrupted", "");
            close(feed_fd);
        }
    }
}

/* A file has no name until it is finished, where the file system can do that. */
static void a_killed_encode_leaves_nothing(void **state)
{
    struct world *w = *state;
    char *out = path_of(w, "out");
    const int fd = open(out, O_TMPFILE | O_RDWR, 0600);
    free(out);
    if (fd < 0) skip();
    close(fd);
    int feed_fd;
    const pid_t pid = start_half_fed(w, &kinds[5], &feed_fd);
    kill(pid, SIGKILL);
    assert_int_equal(finish(w, pid), 1000 + SIGKILL);
    see_nothing_left(w);
    close(feed_fd);
}

static void an_encode_ends_with_its_parent(void **state)
{
    struct world *w = *state;
    int feed[2], told[2], state_of_parent;
    char byte;
    assert_int_equal(pipe2(feed, O_CLOEXEC), 0);
    assert_int_equal(pipe2(told, O_CLOEXEC), 0);
    const pid_t parent = fork();
    if (parent == 0) { /* lives until the test has seen the program read */
        char line[300];
        snprintf(line, sizeof line, "%s -o out/film", film(w, &kinds[5], FRAMES));
        close(feed[1]);
        start(w, line, feed[0]);
        close(told[1]);
        _exit(read(told[0], &byte, 1) == 1 ? 0 : 1);
    }
    close(feed[0]);
    assert_int_equal(weir_fd_write(feed[1], w->frames, FRAMES / 2 * FRAME_BYTES, "pipe", NULL), WEIR_OK);
    assert_int_equal(write(told[1], "x", 1), 1);
    assert_int_equal(waitpid(parent, &state_of_parent, 0), parent);
    assert_int_equal(WEXITSTATUS(state_of_parent), 0);
    struct pollfd gone = { .fd = feed[1] }; /* POLLERR: nobody holds the reading end any more */
    assert_int_equal(poll(&gone, 1, WAIT_MS), 1);
    assert_true(gone.revents & POLLERR);
    close(feed[1]);
    close(told[0]);
    close(told[1]);
    see_nothing_left(w);
}

static void an_encode_over_its_cpu_seconds_ends_and_leaves_nothing(void **state)
{
    struct world *w = *state;
    const int zeros = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    const pid_t pid = start(w,
                            "encode --width 512 --height 512 --frames 100000 --fps 8 --format gif --cpu-seconds 1 "
                            "-o out/film",
                            zeros);
    see_failure(w, finish(w, pid), 74, "--cpu-seconds", "");
    close(zeros);
}

static void an_encode_over_its_memory_ends_and_leaves_nothing(void **state)
{
#ifdef __SANITIZE_ADDRESS__
    (void)state;
    skip(); /* its shadow alone is terabytes of address space */
#else
    struct world *w = *state;
    const int zeros = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    const pid_t pid = start(w,
                            "encode --width 8192 --height 8192 --frames 1 --fps 8 --format gif --memory-mib 256 -o "
                            "out/film",
                            zeros);
    see_failure(w, finish(w, pid), 71, "out of memory", "201326592");
    close(zeros);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_gives_back_its_frames_and_receipt),
        cmocka_unit_test(every_image_gives_back_its_pixels_and_receipt),
        cmocka_unit_test(an_images_receipt_is_carried_up_to_its_limit),
        cmocka_unit_test(equal_frames_give_equal_images),
        cmocka_unit_test(damaged_images_are_refused),
        cmocka_unit_test(huge_images_are_refused),
        cmocka_unit_test(an_image_takes_the_bytes_of_one_frame),
        cmocka_unit_test(an_interrupted_image_leaves_nothing),
        cmocka_unit_test(a_receipt_of_64_kib_is_carried_and_a_larger_one_refused),
        cmocka_unit_test(a_receipt_that_is_no_json_object_is_refused),
        cmocka_unit_test(equal_frames_give_equal_bytes),
        cmocka_unit_test(one_two_and_five_segments_join_to_the_frames_they_hold),
        cmocka_unit_test(segments_that_differ_are_refused_by_name),
        cmocka_unit_test(a_segment_cut_short_anywhere_is_refused_by_name),
        cmocka_unit_test(damaged_films_never_crash_a_reader),
        cmocka_unit_test(too_few_and_too_many_bytes_are_refused_with_both_counts),
        cmocka_unit_test(every_limit_names_its_flag_and_both_sides_hold),
        cmocka_unit_test(command_lines_that_make_no_sense_are_refused),
        cmocka_unit_test(images_need_no_neighbour),
        cmocka_unit_test(a_folder_of_pictures_is_never_mixed_with_what_was_there),
        cmocka_unit_test(a_folder_that_cannot_be_written_is_a_clear_error),
        cmocka_unit_test(a_file_over_its_limit_leaves_nothing),
        cmocka_unit_test(a_full_disk_leaves_nothing),
        cmocka_unit_test(an_interrupted_encode_leaves_nothing),
        cmocka_unit_test(a_killed_encode_leaves_nothing),
        cmocka_unit_test(an_encode_ends_with_its_parent),
        cmocka_unit_test(an_encode_over_its_cpu_seconds_ends_and_leaves_nothing),
        cmocka_unit_test(an_encode_over_its_memory_ends_and_leaves_nothing),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, world_begin, world_end);
}
