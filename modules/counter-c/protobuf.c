#include "protobuf.h"

#include <string.h>

// --- Reading ---------------------------------------------------------------------------------------------------------------

enum {
    VARINT_BYTES_MAX = 10,
    // How deep groups may lie in each other.
    DEPTH_MAX = 100,
};

static uint64_t fail(struct pb_reader *reader) {
    reader->bad = true;
    return 0;
}

// Seven bits a byte, the lowest first; the top bit says that more come. The tenth byte has room for one bit.
static uint64_t read_varint(struct pb_reader *reader) {
    uint64_t value = 0;
    for (size_t i = 0; i < VARINT_BYTES_MAX && i < reader->rest.length; i++) {
        uint64_t byte = reader->rest.at[i];
        if (i == VARINT_BYTES_MAX - 1 && byte > 1) break;
        value |= (byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            reader->rest.at += i + 1;
            reader->rest.length -= i + 1;
            return value;
        }
    }
    return fail(reader);
}

static struct bytes read_bytes(struct pb_reader *reader, uint64_t length) {
    if (reader->bad || length > reader->rest.length) {
        fail(reader);
        return (struct bytes){0};
    }
    struct bytes bytes = {reader->rest.at, length};
    reader->rest.at += length;
    reader->rest.length -= length;
    return bytes;
}

static void read_key(struct pb_reader *reader, struct pb_field *field) {
    uint64_t key = read_varint(reader);
    field->number = key >> 3;
    field->type = key & 7;
    if (key > UINT32_MAX || field->number == 0 || field->type > PB_FIXED32) fail(reader);
}

static void read_value(struct pb_reader *reader, struct pb_field *field, int depth);

// All up to the end of the group, which must have its number.
static void skip_group(struct pb_reader *reader, uint32_t number, int depth) {
    while (!reader->bad) {
        struct pb_field field;
        read_key(reader, &field);
        if (field.type == PB_END_GROUP) {
            if (field.number != number) fail(reader);
            return;
        }
        read_value(reader, &field, depth + 1);
    }
}

static void read_value(struct pb_reader *reader, struct pb_field *field, int depth) {
    if (reader->bad || depth == DEPTH_MAX) {
        fail(reader);
        return;
    }
    switch (field->type) {
    case PB_VARINT: field->varint = read_varint(reader); break;
    case PB_FIXED64: read_bytes(reader, 8); break;
    case PB_LENGTH: field->bytes = read_bytes(reader, read_varint(reader)); break;
    case PB_GROUP: skip_group(reader, field->number, depth); break;
    case PB_END_GROUP: fail(reader); break;
    case PB_FIXED32: read_bytes(reader, 4); break;
    }
}

bool pb_next(struct pb_reader *reader, struct pb_field *field) {
    if (reader->bad || reader->rest.length == 0) return false;
    read_key(reader, field);
    read_value(reader, field, 0);
    return !reader->bad;
}

// --- Values ----------------------------------------------------------------------------------------------------------------

static bool is_continuation(uint8_t byte) { return (byte & 0xc0) == 0x80; }

// Length of the character that begins here, or 0 if it is none: an overlong form, half of a surrogate pair, or beyond
// U+10FFFF. Only the second byte has limits of its own, so comparing the first two tells all.
static size_t character(const uint8_t *at, size_t left) {
    uint8_t first = at[0];
    if (first < 0x80) return 1;
    size_t length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (first < 0xc2 || first > 0xf4 || left < length) return 0;
    for (size_t i = 1; i < length; i++) {
        if (!is_continuation(at[i])) return 0;
    }
    if ((first == 0xe0 && at[1] < 0xa0) || (first == 0xed && at[1] > 0x9f)) return 0;
    if ((first == 0xf0 && at[1] < 0x90) || (first == 0xf4 && at[1] > 0x8f)) return 0;
    return length;
}

static bool is_utf8(struct bytes text) {
    for (size_t i = 0, length; i < text.length; i += length) {
        length = character(text.at + i, text.length - i);
        if (length == 0) return false;
    }
    return true;
}

void pb_bytes(struct pb_reader *reader, const struct pb_field *field, struct bytes *value) {
    if (field->type != PB_LENGTH) fail(reader);
    else *value = field->bytes;
}

void pb_string(struct pb_reader *reader, const struct pb_field *field, struct bytes *value) {
    pb_bytes(reader, field, value);
    if (field->type == PB_LENGTH && !is_utf8(field->bytes)) fail(reader);
}

void pb_int64(struct pb_reader *reader, const struct pb_field *field, int64_t *value) {
    if (field->type != PB_VARINT) fail(reader);
    else *value = (int64_t)field->varint;
}

void pb_uint32(struct pb_reader *reader, const struct pb_field *field, uint32_t *value) {
    if (field->type != PB_VARINT) fail(reader);
    else *value = (uint32_t)field->varint;
}

// --- Writing ---------------------------------------------------------------------------------------------------------------

static void append(struct pb_writer *writer, const void *bytes, size_t length) {
    if (length > writer->capacity - writer->length) __builtin_trap();
    memcpy(writer->at + writer->length, bytes, length);
    writer->length += length;
}

static void append_varint(struct pb_writer *writer, uint64_t value) {
    uint8_t bytes[VARINT_BYTES_MAX];
    size_t length = 0;
    for (; value >= 0x80; value >>= 7) bytes[length++] = value | 0x80;
    bytes[length++] = value;
    append(writer, bytes, length);
}

static void append_key(struct pb_writer *writer, uint32_t number, enum pb_type type) {
    append_varint(writer, (uint64_t)number << 3 | type);
}

void pb_put_int64(struct pb_writer *writer, uint32_t number, int64_t value) {
    if (value == 0) return;
    append_key(writer, number, PB_VARINT);
    append_varint(writer, (uint64_t)value);
}

static void append_delimited(struct pb_writer *writer, uint32_t number, const void *bytes, size_t length) {
    append_key(writer, number, PB_LENGTH);
    append_varint(writer, length);
    append(writer, bytes, length);
}

void pb_put_bytes(struct pb_writer *writer, uint32_t number, struct bytes value) {
    if (value.length != 0) append_delimited(writer, number, value.at, value.length);
}

void pb_put_message(struct pb_writer *writer, uint32_t number, const struct pb_writer *message) {
    append_delimited(writer, number, message->at, message->length);
}
