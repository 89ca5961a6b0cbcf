/* picture: one image decoded from the bytes of a PNG or JPEG file. What it is, its bytes say, not its name. */
#ifndef CORE_IO_PICTURE_H
#define CORE_IO_PICTURE_H

#include "core/base.h"

enum { PICTURE_SIDE = 16384, PICTURE_PIXELS = 1 << 26 }; /* more is refused before memory is taken */
struct picture {
    int h, w, c; /* c: 1 or 3 */
    uint8_t *px; /* [h, w, c]; picture_done */
    bool jpeg;
};
/* ERR_FORMAT names label: no PNG or JPEG, cut short, damaged anywhere, 16 bits a channel, transparent, CMYK, or too large. JPEGs are
 * decoded as libjpeg does by default (accurate DCT, smooth chroma), so Pillow with the same library gives the same pixels. */
err_t picture_decode(struct picture *p, const void *data, size_t n, const char *label) MUST_USE;
/* Only its header: h, w, c, jpeg; px stays NULL. */
err_t picture_peek(struct picture *p, const void *data, size_t n, const char *label) MUST_USE;
void picture_done(struct picture *p);
bool picture_name(const char *file); /* ends in .png, .jpg or .jpeg, in any case */

/* In place. Grey to colour repeats; colour to grey is (299 R + 587 G + 114 B) / 1000, rounded. */
void picture_channels(struct picture *p, int c);
void picture_crop(struct picture *p); /* the square in the middle */
/* To side x side, side <= both: each pixel is the mean of the area it covers (of whole pixels where side divides), rounded. */
void picture_shrink(struct picture *p, int side);

#endif
