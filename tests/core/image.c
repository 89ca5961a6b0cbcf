/* Images: PNG read back through libpng, the grid's geometry, the .npz byte for byte as its two formats say. */
#include "tests/test.h"

#include <png.h>

#include "core/io/image.h"

static void png_back(void **state)
{
    (void)state;
    for (int c = 1; c <= 3; c += 2) {
        uint8_t px[5 * 7 * 3], back[5 * 7 * 3];
        for (int i = 0; i < 5 * 7 * c; i++) px[i] = (uint8_t)(i * 37);
        void *png, *again;
        size_t n, m;
        assert_ok(png_encode(px, 5, 7, c, &png, &n));
        assert_ok(png_encode(px, 5, 7, c, &again, &m));
        assert_int_equal(n, m);
        assert_memory_equal(png, again, n);
        png_image im = {.version = PNG_IMAGE_VERSION};
        assert_true(png_image_begin_read_from_memory(&im, png, n));
        assert_int_equal(im.width, 7);
        assert_int_equal(im.height, 5);
        im.format = c == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
        assert_true(png_image_finish_read(&im, NULL, back, 0, NULL));
        assert_memory_equal(px, back, (size_t)(35 * c));
        mem_free(png);
        mem_free(again);
    }
    void *png;
    size_t n;
    assert_err(ERR_FAILED, png_encode((const uint8_t *)"", 1, 1, 2, &png, &n));
    assert_err(ERR_IO, png_write("/nonexistent/x.png", (const uint8_t *)"", 1, 1, 1));
}

static void grid(void **state)
{
    (void)state;
    const uint8_t px[3 * 4] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}; /* three images 2 x 2 */
    uint8_t *g;
    int h, w;
    image_grid(px, 3, 2, 2, 1, 2, 3, 1, &g, &h, &w);
    assert_int_equal(h, 2 * 6 + 1);
    assert_int_equal(w, 2 * 6 + 1);
    assert_int_equal(g[0], 1);
    assert_int_equal(g[2], 1);
    assert_int_equal(g[3], 2);
    assert_int_equal(g[5 * w + 5], 4);
    assert_int_equal(g[6], 255);           /* the gap */
    assert_int_equal(g[7], 5);             /* second image */
    assert_int_equal(g[7 * w], 9);         /* third, second row */
    assert_int_equal(g[12 * w + 12], 255); /* no fourth */
    mem_free(g);
}

static void view(void **state)
{
    (void)state;
    const double x[] = {-1, 1, 0, -7, 9, NAN, 1.0 / 255, 0.0079};
    uint8_t u[8];
    image_view_u8(x, u, 8);
    static const uint8_t want[] = {0, 255, 128, 0, 255, 0, 128, 129};
    assert_memory_equal(u, want, 8);
}

static uint32_t le32(const char *p)
{
    const uint8_t *b = (const uint8_t *)p;
    return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static void npz(void **state)
{
    (void)state;
    char dir[256], path[300], *z;
    size_t n;
    uint8_t px[2 * 3 * 5];
    for (int i = 0; i < 30; i++) px[i] = (uint8_t)(200 + i);
    const int32_t labels[2] = {7, -1};
    snprintf(path, sizeof path, "%s/x.npz", test_dir(dir, sizeof dir));
    assert_ok(npz_write_images(path, px, labels, 2, 3, 5, 1));
    assert_ok(file_read(path, 0, &z, &n));
    const char *end = z + n - 22; /* no comment: the directory's end is the last 22 bytes */
    assert_memory_equal(end, "PK\x05\x06", 4);
    assert_int_equal(end[10], 2);
    const char *dir_at = z + le32(end + 16);
    assert_ptr_equal(dir_at + le32(end + 12), end);
    for (int i = 0; i < 2; i++) {
        assert_memory_equal(dir_at, "PK\x01\x02", 4);
        size_t size = le32(dir_at + 20);
        const char *local = z + le32(dir_at + 42);
        assert_memory_equal(local, "PK\x03\x04", 4);
        assert_memory_equal(local + 4, dir_at + 6, 26); /* the shared fields */
        assert_memory_equal(local + 30, i ? "labels.npy" : "images.npy", 10);
        const char *npy = local + 40;
        assert_int_equal(crc32_of(0, npy, size), le32(dir_at + 16));
        assert_memory_equal(npy, "\x93NUMPY\x01\x00", 8);
        size_t head = (uint8_t)npy[8] + 256u * (uint8_t)npy[9];
        assert_int_equal((10 + head) % 64, 0);
        assert_int_equal(npy[10 + head - 1], '\n');
        char dict[200] = {0};
        memcpy(dict, npy + 10, head < 199 ? head : 199);
        assert_has(dict, i ? "{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }"
                           : "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3, 5, 1,), }");
        assert_int_equal(size, 10 + head + (i ? 16 : 30));
        const int64_t wide[2] = {7, -1};
        if (i) assert_memory_equal(npy + 10 + head, wide, 16);
        else assert_memory_equal(npy + 10 + head, px, 30);
        dir_at += 46 + 10;
    }
    mem_free(z);
    assert_ok(npz_write_images(path, px, NULL, 2, 3, 5, 1));
    assert_ok(file_read(path, 0, &z, &n));
    assert_int_equal(z[n - 22 + 10], 1);
    mem_free(z);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(png_back), cmocka_unit_test(grid), cmocka_unit_test(view),
                                       cmocka_unit_test(npz)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
