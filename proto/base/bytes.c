#include "proto/base/bytes.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

void weir_sha256_init(struct weir_sha256 *sha)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    assert(context);
    const int ok = EVP_DigestInit_ex(context, EVP_sha256(), NULL);
    assert(ok == 1);
    (void)ok;
    sha->context = context;
}

void weir_sha256_update(struct weir_sha256 *sha, const void *bytes, size_t count)
{
    if (count) EVP_DigestUpdate(sha->context, bytes, count);
}

void weir_sha256_final(struct weir_sha256 *sha, uint8_t out[WEIR_SHA256_BYTES])
{
    EVP_DigestFinal_ex(sha->context, out, NULL);
    EVP_MD_CTX_free(sha->context);
    sha->context = NULL;
}

void weir_sha256_of(const void *bytes, size_t count, uint8_t out[WEIR_SHA256_BYTES])
{
    struct weir_sha256 sha;
    weir_sha256_init(&sha);
    weir_sha256_update(&sha, bytes, count);
    weir_sha256_final(&sha, out);
}

void weir_hex_write(const void *bytes, size_t count, char *out)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *from = bytes;
    for (size_t i = 0; i < count; i++) {
        out[2 * i] = digits[from[i] >> 4];
        out[2 * i + 1] = digits[from[i] & 15];
    }
    out[2 * count] = '\0';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

bool weir_hex_read(const char *hex, void *out, size_t count)
{
    uint8_t *to = out;
    for (size_t i = 0; i < count; i++) {
        const int high = hex_digit(hex[2 * i]);
        if (high < 0) return false;
        const int low = hex_digit(hex[2 * i + 1]);
        if (low < 0) return false;
        to[i] = (uint8_t)(high << 4 | low);
    }
    return hex[2 * count] == '\0';
}

/* How many bytes follow the first of a character, or -1; `low` and `high` bound the first of those. */
static int more_of(uint8_t first, uint8_t *low, uint8_t *high)
{
    *low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    *high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (first < 0x80) return first ? 0 : -1;
    return first < 0xc2 ? -1 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : first < 0xf5 ? 3 : -1;
}

bool weir_utf8_valid(const void *bytes, size_t count)
{
    const uint8_t *s = bytes, *const end = s + count;
    while (s < end) {
        uint8_t low, high;
        const int more = more_of(*s, &low, &high);
        if (more < 0 || end - s <= more) return false;
        if (more && (s[1] < low || s[1] > high)) return false;
        for (int i = 2; i <= more; i++) {
            if (s[i] < 0x80 || s[i] > 0xbf) return false;
        }
        s += 1 + more;
    }
    return true;
}

void weir_random_bytes(void *out, size_t count)
{
    uint8_t *to = out;
    while (count) {
        const ssize_t got = getrandom(to, count, 0);
        if (got < 0) {
            assert(errno == EINTR);
            continue;
        }
        to += got;
        count -= (size_t)got;
    }
}

bool weir_bytes_equal(const void *a, const void *b, size_t count)
{
    const uint8_t *x = a, *y = b;
    uint8_t difference = 0;
    for (size_t i = 0; i < count; i++) difference = (uint8_t)(difference | (x[i] ^ y[i]));
    return difference == 0;
}

uint16_t weir_load_u16(const void *bytes)
{
    const uint8_t *b = bytes;
    return (uint16_t)(b[0] | b[1] << 8);
}

uint32_t weir_load_u32(const void *bytes)
{
    const uint8_t *b = bytes;
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

uint64_t weir_load_u64(const void *bytes)
{
    return weir_load_u32(bytes) | (uint64_t)weir_load_u32((const uint8_t *)bytes + 4) << 32;
}

void weir_store_u32(void *bytes, uint32_t value)
{
    uint8_t *b = bytes;
    for (int i = 0; i < 4; i++) b[i] = (uint8_t)(value >> 8 * i);
}

void weir_store_u64(void *bytes, uint64_t value)
{
    uint8_t *b = bytes;
    for (int i = 0; i < 8; i++) b[i] = (uint8_t)(value >> 8 * i);
}

static enum weir_status read_open_file(int fd, const char *path, size_t bytes_max, char **out, size_t *out_bytes,
                                       struct weir_error *error)
{
    struct stat facts;
    if (fstat(fd, &facts) != 0) return weir_fail(error, WEIR_IO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(facts.st_mode)) return weir_fail(error, WEIR_BAD_FILE, "%s: not a regular file", path);
    if ((uint64_t)facts.st_size > bytes_max) {
        return weir_fail(error, WEIR_TOO_LARGE, "%s: %lld bytes, at most %zu are read", path,
                         (long long)facts.st_size, bytes_max);
    }
    const size_t bytes = (size_t)facts.st_size;
    char *text = malloc(bytes + 1);
    if (!text) return weir_fail(error, WEIR_NO_MEMORY, "%s: no memory for its %zu bytes", path, bytes);
    size_t done = 0;
    while (done < bytes) {
        const ssize_t got = read(fd, text + done, bytes - done);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            free(text);
            return weir_fail(error, WEIR_IO, "%s: %s after %zu of %zu bytes", path,
                             got < 0 ? strerror(errno) : "the file ended", done, bytes);
        }
        done += (size_t)got;
    }
    text[bytes] = '\0';
    *out = text;
    *out_bytes = bytes;
    return WEIR_OK;
}

enum weir_status weir_file_read(const char *path, size_t bytes_max, char **out, size_t *out_bytes,
                                struct weir_error *error)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return weir_fail(error, errno == ENOENT ? WEIR_NOT_FOUND : WEIR_IO, "%s: %s", path, strerror(errno));
    }
    const enum weir_status status = read_open_file(fd, path, bytes_max, out, out_bytes, error);
    close(fd);
    return status;
}

enum weir_status weir_fd_write(int fd, const void *bytes, size_t count, const char *path, struct weir_error *error)
{
    const uint8_t *from = bytes;
    while (count) {
        const ssize_t put = write(fd, from, count);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return weir_fail(error, WEIR_IO, "%s: %s", path, strerror(put < 0 ? errno : EIO));
        from += put;
        count -= (size_t)put;
    }
    return WEIR_OK;
}
