// As much of protobuf's wire format as a small module needs: fields one after the other, read and written in place.
//
// A message is decoded by a loop over `pb_next` with a `switch` on the field's number; fields that the switch does not know
// are skipped, as protobuf demands, and of a field that comes twice the last one counts. Whatever is wrong with the bytes
// sets `bad`, after which nothing more is read. Nothing is copied: text points into the request.
//
// What counts as bad is what the Rust SDK (prost) refuses, too: ../counter/conformance says so, case by case.

#ifndef PROTOBUF_H
#define PROTOBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bytes {
    const uint8_t *at;
    size_t length;
};

// --- Reading ---------------------------------------------------------------------------------------------------------------

enum pb_type { PB_VARINT = 0, PB_FIXED64 = 1, PB_LENGTH = 2, PB_GROUP = 3, PB_END_GROUP = 4, PB_FIXED32 = 5 };

struct pb_reader {
    struct bytes rest;
    bool bad;
};

struct pb_field {
    uint32_t number;
    enum pb_type type;
    uint64_t varint;     // of a PB_VARINT
    struct bytes bytes;  // of a PB_LENGTH
};

// The next field; false at the end of the message and if it is bad.
bool pb_next(struct pb_reader *reader, struct pb_field *field);

// The value of a field, if it has the type that the .proto says; otherwise the message is bad.
void pb_string(struct pb_reader *reader, const struct pb_field *field, struct bytes *value);
void pb_bytes(struct pb_reader *reader, const struct pb_field *field, struct bytes *value);
void pb_int64(struct pb_reader *reader, const struct pb_field *field, int64_t *value);
void pb_uint32(struct pb_reader *reader, const struct pb_field *field, uint32_t *value);

// --- Writing ---------------------------------------------------------------------------------------------------------------

// Room for a message. Whoever makes one knows how long it can become; a write beyond that is a bug, and traps.
struct pb_writer {
    uint8_t *at;
    size_t length, capacity;
};

// Bytes of a number with its key, if the field is one of the first 15.
enum { PB_INT64_MAX = 11 };

#define PB_WRITER(array) ((struct pb_writer){.at = (array), .capacity = sizeof(array)})

// Like all of proto3 these leave out what has its default: 0, false, or nothing. Only a message is always there.
void pb_put_int64(struct pb_writer *writer, uint32_t number, int64_t value);
void pb_put_bytes(struct pb_writer *writer, uint32_t number, struct bytes value);
void pb_put_message(struct pb_writer *writer, uint32_t number, const struct pb_writer *message);

#endif
