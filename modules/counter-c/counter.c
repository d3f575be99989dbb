// counter.v1.Counter in C: what ../counter is in Rust, to the bit. Requests, answers and stored bytes are the same, so either
// of the two can take the place of the other while the cluster runs.
//
// Each call runs in a fresh instance: static variables are as they were compiled, and memory is not given back.

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "balsa.h"
#include "protobuf.h"

enum { OK = 0, INVALID_ARGUMENT = 3, OUT_OF_RANGE = 11, UNIMPLEMENTED = 12 };

// Positions in the method table: module.textproto has the same order.
enum method { ADD, REMOVE, GET, LIST };

enum {
    NAME_MAX = 256,
    LIST_MAX = 1000,
    // Room for as many counters, with 8 bytes of value and 8 of framing.
    LIST_BYTES = LIST_MAX * (NAME_MAX + 16) + 16,
};

// --- Answers ---------------------------------------------------------------------------------------------------------------

static int answer(const struct pb_writer *response) {
    balsa_output(response->at, response->length);
    return OK;
}

// All responses but that of List: { int64 value = 1; }
static int answer_value(int64_t value) {
    uint8_t room[16];
    struct pb_writer response = PB_WRITER(room);
    pb_put_int64(&response, 1, value);
    return answer(&response);
}

// google.rpc.Status: { int32 code = 1; string message = 2; }. The host undoes what the call has written.
static int refuse(int code, const char *message) {
    uint8_t room[256];
    struct pb_writer status = PB_WRITER(room);
    pb_put_int64(&status, 1, code);
    pb_put_bytes(&status, 2, (struct bytes){(const uint8_t *)message, strlen(message)});
    balsa_output(status.at, status.length);
    return code;
}

static int refuse_undecodable(void) {
    return refuse(INVALID_ARGUMENT, "the request does not decode: it is not a message as counter.proto defines it");
}

static int check_length(struct bytes name) {
    if (name.length <= NAME_MAX) return OK;
    char message[80];
    snprintf(message, sizeof message, "a name of %zu bytes: at most %d are allowed", name.length, NAME_MAX);
    return refuse(INVALID_ARGUMENT, message);
}

static int check_name(struct bytes name) {
    return name.length == 0 ? refuse(INVALID_ARGUMENT, "the name is empty") : check_length(name);
}

// --- State -----------------------------------------------------------------------------------------------------------------

// The key is the name; the value is the number as it lies in memory, which for wasm is little-endian everywhere.
static int64_t value_of(struct bytes name) {
    int64_t value = 0;
    balsa_get(name.at, name.length, &value, sizeof value);
    return value;
}

// --- Commands --------------------------------------------------------------------------------------------------------------

static int add(struct pb_reader request) {
    struct bytes name = {0};
    int64_t amount = 0;
    for (struct pb_field field; pb_next(&request, &field);) {
        if (field.number == 1) pb_string(&request, &field, &name);
        if (field.number == 2) pb_int64(&request, &field, &amount);
    }
    if (request.bad) return refuse_undecodable();
    int refused = check_name(name);
    if (refused) return refused;

    int64_t value = value_of(name), sum;
    if (__builtin_add_overflow(value, amount, &sum)) {
        char message[80];
        snprintf(message, sizeof message, "%" PRId64 " + %" PRId64 " does not fit 64 bits", value, amount);
        return refuse(OUT_OF_RANGE, message);
    }
    balsa_put(name.at, name.length, &sum, sizeof sum);
    return answer_value(sum);
}

// The request of Remove and of Get: { string name = 1; }
static int read_name(struct pb_reader request, struct bytes *name) {
    for (struct pb_field field; pb_next(&request, &field);) {
        if (field.number == 1) pb_string(&request, &field, name);
    }
    return request.bad ? refuse_undecodable() : check_name(*name);
}

static int remove_counter(struct pb_reader request) {
    struct bytes name = {0};
    int refused = read_name(request, &name);
    if (refused) return refused;
    int64_t value = value_of(name);
    balsa_delete(name.at, name.length);
    return answer_value(value);
}

// --- Queries ---------------------------------------------------------------------------------------------------------------

static int get(struct pb_reader request) {
    struct bytes name = {0};
    int refused = read_name(request, &name);
    return refused ? refused : answer_value(value_of(name));
}

struct list_request {
    struct bytes prefix, after;
    uint32_t limit;
};

// A range of keys. A bound is one byte longer than a name at most.
struct range {
    uint8_t start[NAME_MAX + 1], end[NAME_MAX];
    size_t start_length, end_length;
    bool has_end;
};

static int compare(struct bytes a, struct bytes b) {
    int order = memcmp(a.at, b.at, a.length < b.length ? a.length : b.length);
    return order ? order : (a.length > b.length) - (a.length < b.length);
}

// From the prefix, or from right behind `after` if that is later: the first key behind a name is the name and a zero byte.
static void set_start(struct range *range, const struct list_request *request) {
    bool behind = compare(request->after, request->prefix) >= 0;
    struct bytes from = behind ? request->after : request->prefix;
    memcpy(range->start, from.at, from.length);
    range->start_length = from.length + behind;
}

// To the first key that no longer begins with the prefix: its last byte below 0xff counted up, and none behind it. Strings
// have no byte 0xff, so that is its last byte.
static void set_end(struct range *range, struct bytes prefix) {
    range->has_end = prefix.length != 0;
    range->end_length = prefix.length;
    memcpy(range->end, prefix.at, prefix.length);
    if (range->has_end) range->end[prefix.length - 1]++;
}

static uint32_t read_u32(const uint8_t *at) {
    uint32_t number;
    memcpy(&number, at, sizeof number);
    return number;
}

// Entry: { string name = 1; int64 value = 2; }. Takes the item at `at` of a page and returns where the next one begins.
static const uint8_t *put_entry(struct pb_writer *response, const uint8_t *at) {
    struct bytes name = {at + 4, read_u32(at)};
    int64_t value;
    const uint8_t *stored = name.at + name.length + 4;
    memcpy(&value, stored, sizeof value);

    uint8_t room[NAME_MAX + 16];
    struct pb_writer entry = PB_WRITER(room);
    pb_put_bytes(&entry, 1, name);
    pb_put_int64(&entry, 2, value);
    pb_put_message(response, 1, &entry);
    return stored + sizeof value;
}

static int list_range(const struct range *range, uint32_t limit) {
    static uint8_t page[LIST_BYTES], room[LIST_BYTES + LIST_MAX * 8];
    balsa_scan(range->start, range->start_length, range->end, range->end_length, range->has_end ? 0 : BALSA_SCAN_NO_END,
               limit, sizeof page, page, sizeof page);
    struct pb_writer response = PB_WRITER(room);
    const uint8_t *item = page + 5;
    for (uint32_t left = read_u32(page); left > 0; left--) item = put_entry(&response, item);
    pb_put_int64(&response, 2, page[4]);
    return answer(&response);
}

static int list(struct pb_reader reader) {
    struct list_request request = {0};
    for (struct pb_field field; pb_next(&reader, &field);) {
        if (field.number == 1) pb_string(&reader, &field, &request.prefix);
        if (field.number == 2) pb_string(&reader, &field, &request.after);
        if (field.number == 3) pb_uint32(&reader, &field, &request.limit);
    }
    if (reader.bad) return refuse_undecodable();
    int refused = check_length(request.prefix);
    if (!refused) refused = check_length(request.after);
    if (refused) return refused;

    struct range range = {0};
    set_start(&range, &request);
    set_end(&range, request.prefix);
    return list_range(&range, request.limit - 1 < LIST_MAX ? request.limit : LIST_MAX);
}

// --- Exports ---------------------------------------------------------------------------------------------------------------

BALSA_EXPORT(balsa_abi_1) void balsa_abi_1(void) {}

BALSA_EXPORT(balsa_call) int32_t balsa_call(uint32_t method, uint32_t input_length) {
    uint8_t *input = malloc(input_length);
    balsa_input_read(input, 0, input_length);
    struct pb_reader request = {.rest = {input, input_length}};
    switch (method) {
    case ADD: return add(request);
    case REMOVE: return remove_counter(request);
    case GET: return get(request);
    case LIST: return list(request);
    default: return refuse(UNIMPLEMENTED, "no such method");
    }
}

// The section that says what the module serves. (clang's section attribute would put an array among the data.)
__asm__(".section .custom_section.balsa.module,\"\",@\n.incbin \"module.bin\"\n");
