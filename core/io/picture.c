/* Pictures in. Both libraries leave an error by longjmp: whatever must live across it is a member of a struct outside the function that
 * calls setjmp. A warning about damaged data is an error here: a data set with half a picture in it is no data set. */
#include "core/io/picture.h"

#include <jpeglib.h>
#include <math.h>
#include <png.h>
#include <setjmp.h>
#include <string.h>
#include <strings.h>

struct decoder {
    struct picture *p;
    const char *label;
    const uint8_t *data;
    size_t n, at;
    bool peek;
    char why[JMSG_LENGTH_MAX];
};

static err_t size_check(const struct decoder *d, unsigned long w, unsigned long h)
{
    if (w >= 1 && h >= 1 && w <= PICTURE_SIDE && h <= PICTURE_SIDE && w * h <= PICTURE_PIXELS) return ERR_OK;
    return fail(ERR_FORMAT, "%s: an image of %lu x %lu pixels: at most %d on a side and %d in all", d->label, w, h,
                PICTURE_SIDE, PICTURE_PIXELS);
}

static err_t damaged(const struct decoder *d, const char *kind)
{
    return fail(ERR_FORMAT, "%s: damaged %s file: %s", d->label, kind, d->why);
}

/* ---- PNG ----------------------------------------------------------------------------------------------------------- */

static void png_take(png_structp png, png_bytep out, size_t n)
{
    struct decoder *d = png_get_io_ptr(png);
    if (d->n - d->at < n) png_error(png, "it ends early");
    memcpy(out, d->data + d->at, n);
    d->at += n;
}

static void png_stop(png_structp png, png_const_charp msg)
{
    struct decoder *d = png_get_error_ptr(png);
    snprintf(d->why, sizeof d->why, "%s", msg);
    png_longjmp(png, 1);
}

/* libpng warns about what is odd in chunks that no pixel comes from (colour profiles, times). */
static void png_shrug(png_structp png, png_const_charp msg)
{
    (void)png;
    (void)msg;
}

static err_t png_head(struct decoder *d, png_structp png, png_infop info)
{
    if (setjmp(png_jmpbuf(png))) return damaged(d, "PNG");
    png_set_crc_action(png, PNG_CRC_ERROR_QUIT, PNG_CRC_WARN_DISCARD);
    png_read_info(png, info);
    int depth = png_get_bit_depth(png, info), type = png_get_color_type(png, info);
    TRY(size_check(d, png_get_image_width(png, info), png_get_image_height(png, info)));
    if (depth == 16) return fail(ERR_FORMAT, "%s: 16 bits a channel; data sets have 8: convert it first", d->label);
    if (type & PNG_COLOR_MASK_ALPHA || png_get_valid(png, info, PNG_INFO_tRNS))
        return fail(ERR_FORMAT, "%s: the image is transparent (alpha channel): put it on a background first", d->label);
    if (type == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
    else if (type == PNG_COLOR_TYPE_GRAY && depth < 8) png_set_expand_gray_1_2_4_to_8(png);
    *d->p = (struct picture){.h = (int)png_get_image_height(png, info),
                             .w = (int)png_get_image_width(png, info),
                             .c = type & PNG_COLOR_MASK_COLOR ? 3 : 1};
    return ERR_OK;
}

/* rows: pointers to the picture's rows, the caller's. */
static err_t png_body(struct decoder *d, png_structp png, png_bytep *rows)
{
    if (setjmp(png_jmpbuf(png))) return damaged(d, "PNG");
    png_read_image(png, rows);
    png_read_end(png, NULL);
    return ERR_OK;
}

static err_t png_decode(struct decoder *d)
{
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, d, png_stop, png_shrug);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    err_t err = ERR_OK;
    if (!info) {
        png_destroy_read_struct(&png, NULL, NULL);
        return fail(ERR_FAILED, "png: the library is of another version than its header");
    }
    png_set_read_fn(png, d, png_take);
    png_set_user_limits(png, PICTURE_SIDE, PICTURE_SIDE);
    err = png_head(d, png, info);
    if (!err && !d->peek) {
        size_t row = (size_t)d->p->w * (size_t)d->p->c;
        d->p->px = mem_array((size_t)d->p->h, row);
        png_bytep *rows = mem_array((size_t)d->p->h, sizeof *rows);
        for (int y = 0; y < d->p->h; y++) rows[y] = d->p->px + (size_t)y * row;
        err = png_body(d, png, rows);
        mem_free(rows);
    }
    png_destroy_read_struct(&png, &info, NULL);
    return err;
}

/* ---- JPEG ---------------------------------------------------------------------------------------------------------- */

struct jpeg_stop {
    struct jpeg_error_mgr mgr;
    jmp_buf back;
    struct decoder *d;
};

_Noreturn static void jpeg_stop_at(j_common_ptr j)
{
    struct jpeg_stop *s = (struct jpeg_stop *)j->err;
    j->err->format_message(j, s->d->why);
    longjmp(s->back, 1);
}

/* Level -1: corrupt data that libjpeg would paper over. */
static void jpeg_message(j_common_ptr j, int level)
{
    if (level < 0) jpeg_stop_at(j);
}

static err_t jpeg_body(struct decoder *d, struct jpeg_decompress_struct *j, struct jpeg_stop *stop)
{
    if (setjmp(stop->back)) return damaged(d, "JPEG");
    jpeg_mem_src(j, d->data, d->n);
    jpeg_read_header(j, TRUE);
    TRY(size_check(d, j->image_width, j->image_height));
    if (j->jpeg_color_space == JCS_CMYK || j->jpeg_color_space == JCS_YCCK)
        return fail(ERR_FORMAT, "%s: a JPEG in CMYK: convert it to RGB first", d->label);
    j->out_color_space = j->jpeg_color_space == JCS_GRAYSCALE ? JCS_GRAYSCALE : JCS_RGB;
    *d->p = (struct picture){
        .h = (int)j->image_height, .w = (int)j->image_width, .c = j->out_color_space == JCS_RGB ? 3 : 1, .jpeg = true};
    if (d->peek) return ERR_OK;
    size_t row = (size_t)d->p->w * (size_t)d->p->c;
    d->p->px = mem_array((size_t)d->p->h, row);
    jpeg_start_decompress(j);
    while (j->output_scanline < j->output_height) {
        JSAMPROW to = d->p->px + j->output_scanline * row;
        jpeg_read_scanlines(j, &to, 1);
    }
    jpeg_finish_decompress(j);
    return ERR_OK;
}

static err_t jpeg_decode(struct decoder *d)
{
    struct jpeg_decompress_struct j;
    struct jpeg_stop stop = {.d = d};
    memset(&j, 0, sizeof j);
    j.err = jpeg_std_error(&stop.mgr);
    stop.mgr.error_exit = jpeg_stop_at;
    stop.mgr.emit_message = jpeg_message;
    if (setjmp(stop.back)) return damaged(d, "JPEG"); /* of jpeg_create_decompress */
    jpeg_create_decompress(&j);
    err_t err = jpeg_body(d, &j, &stop);
    jpeg_destroy_decompress(&j);
    return err;
}

/* ---- either ---------------------------------------------------------------------------------------------------------- */

static err_t decode(struct picture *p, const void *data, size_t n, const char *label, bool peek)
{
    static const uint8_t png_magic[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    struct decoder d = {.p = p, .label = label, .data = data, .n = n, .peek = peek};
    err_t err;
    *p = (struct picture){.h = 0};
    if (n >= sizeof png_magic && !memcmp(data, png_magic, sizeof png_magic)) err = png_decode(&d);
    else if (n >= 3 && d.data[0] == 0xff && d.data[1] == 0xd8 && d.data[2] == 0xff) err = jpeg_decode(&d);
    else if (!n) err = fail(ERR_FORMAT, "%s: an empty file", label);
    else err = fail(ERR_FORMAT, "%s: neither a PNG nor a JPEG image", label);
    if (err) picture_done(p);
    return err;
}

err_t picture_decode(struct picture *p, const void *data, size_t n, const char *label)
{
    return decode(p, data, n, label, false);
}

err_t picture_peek(struct picture *p, const void *data, size_t n, const char *label)
{
    return decode(p, data, n, label, true);
}

void picture_done(struct picture *p)
{
    mem_free(p->px);
    p->px = NULL;
}

bool picture_name(const char *file)
{
    const char *dot = strrchr(file, '.');
    return dot && (!strcasecmp(dot, ".png") || !strcasecmp(dot, ".jpg") || !strcasecmp(dot, ".jpeg"));
}

/* ---- changes --------------------------------------------------------------------------------------------------------- */

static void replace(struct picture *p, uint8_t *px, int h, int w, int c)
{
    mem_free(p->px);
    p->px = px, p->h = h, p->w = w, p->c = c;
}

void picture_channels(struct picture *p, int c)
{
    if (c == p->c) return;
    size_t n = (size_t)p->h * (size_t)p->w;
    uint8_t *to = mem_array(n, (size_t)c);
    for (size_t i = 0; i < n; i++)
        if (c == 3) memset(to + 3 * i, p->px[i], 3);
        else to[i] = (uint8_t)((299 * p->px[3 * i] + 587 * p->px[3 * i + 1] + 114 * p->px[3 * i + 2] + 500) / 1000);
    replace(p, to, p->h, p->w, c);
}

void picture_crop(struct picture *p)
{
    int side = p->h < p->w ? p->h : p->w, y0 = (p->h - side) / 2, x0 = (p->w - side) / 2;
    if (p->h == p->w) return;
    size_t row = (size_t)side * (size_t)p->c;
    uint8_t *to = mem_array((size_t)side, row);
    for (int y = 0; y < side; y++)
        memcpy(to + (size_t)y * row, p->px + ((size_t)(y0 + y) * (size_t)p->w + (size_t)x0) * (size_t)p->c, row);
    replace(p, to, side, side, p->c);
}

/* Along one side, pixel i of `side` covers [i n, (i + 1) n) of the old pixels, each `side` long: whole numbers, so the mean is exact. */
static void cover(int i, int n, int side, int k, int64_t *weight)
{
    int64_t lo = (int64_t)i * n, hi = lo + n, a = (int64_t)k * side, b = a + side;
    if (a < lo) a = lo;
    if (b > hi) b = hi;
    *weight = b > a ? b - a : 0;
}

void picture_shrink(struct picture *p, int side)
{
    if (p->h == side && p->w == side) return;
    uint8_t *to = mem_array((size_t)side * (size_t)side, (size_t)p->c);
    int64_t area = (int64_t)p->h * p->w;
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++) {
            int64_t sum[3] = {0}, wy, wx;
            int y0 = (int)((int64_t)y * p->h / side), x0 = (int)((int64_t)x * p->w / side);
            for (int j = y0; j < p->h && (int64_t)j * side < (int64_t)(y + 1) * p->h; j++) {
                cover(y, p->h, side, j, &wy);
                for (int i = x0; i < p->w && (int64_t)i * side < (int64_t)(x + 1) * p->w; i++) {
                    cover(x, p->w, side, i, &wx);
                    const uint8_t *from = p->px + ((size_t)j * (size_t)p->w + (size_t)i) * (size_t)p->c;
                    for (int c = 0; c < p->c; c++) sum[c] += wy * wx * from[c];
                }
            }
            for (int c = 0; c < p->c; c++)
                to[((size_t)y * (size_t)side + (size_t)x) * (size_t)p->c + (size_t)c] =
                    (uint8_t)((2 * sum[c] + area) / (2 * area));
        }
    replace(p, to, side, side, p->c);
}
