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

// Positions in the method table: module.textproto has the same order.
enum method { ADD, REMOVE, GET, LIST };

// Bytes of a name, so that a list has room for its counters; counters of one list.
enum { NAME_MAX = 256, LIST_MAX = 1000 };

// --- Answers ---------------------------------------------------------------------------------------------------------------

static int32_t answer(const struct pb_writer *response) {
    balsa_output(response->at, response->length);
    return BALSA_OK;
}

// All responses but that of List: { int64 value = 1; }
static int32_t answer_value(int64_t value) {
    uint8_t room[PB_INT64_MAX];
    struct pb_writer response = PB_WRITER(room);
    pb_put_int64(&response, 1, value);
    return answer(&response);
}

// google.rpc.Status: { int32 code = 1; string message = 2; }. The host undoes what the call has written.
static int32_t refuse(int32_t code, const char *message) {
    uint8_t room[256];
    struct pb_writer status = PB_WRITER(room);
    pb_put_int64(&status, 1, code);
    pb_put_bytes(&status, 2, (struct bytes){(const uint8_t *)message, strlen(message)});
    balsa_output(status.at, status.length);
    return code;
}

static int32_t refuse_undecodable(void) {
    return refuse(BALSA_INVALID_ARGUMENT, "the request does not decode: it is no message as counter.proto defines it");
}

static int32_t check_length(struct bytes name) {
    if (name.length <= NAME_MAX) return BALSA_OK;
    char message[80];
    snprintf(message, sizeof message, "a name of %zu bytes: at most %d are allowed", name.length, NAME_MAX);
    return refuse(BALSA_INVALID_ARGUMENT, message);
}

static int32_t check_name(struct bytes name) {
    return name.length == 0 ? refuse(BALSA_INVALID_ARGUMENT, "the name is empty") : check_length(name);
}

// --- State -----------------------------------------------------------------------------------------------------------------

// What the Rust SDK calls a Map<String, i64> named "values", as ABI.md ("Typed keys") lays it out: a key is the map's name,
// a byte 1, and the counter's name with an end; a value is a message { int64 value = 1; }.
static const uint8_t MAP[] = {'v', 'a', 'l', 'u', 'e', 's', 1};

enum { KEY_MAX = sizeof MAP + 2 * NAME_MAX + 1, ITEM_MAX = 4 + KEY_MAX + 4 + PB_INT64_MAX };

struct key {
    uint8_t at[KEY_MAX];
    size_t length;
};

// The keys of all names that begin with `text` begin like this. The bytes 0 and 1 are escaped, so that 0 can be the end.
static struct key key_prefix(struct bytes text) {
    struct key key = {.length = sizeof MAP};
    memcpy(key.at, MAP, sizeof MAP);
    for (size_t i = 0; i < text.length; i++) {
        bool escaped = text.at[i] <= 1;
        if (escaped) key.at[key.length++] = 1;
        key.at[key.length++] = text.at[i] + escaped;
    }
    return key;
}

static struct key key_of(struct bytes name) {
    struct key key = key_prefix(name);
    key.at[key.length++] = 0;
    return key;
}

// The name in a key, which is overwritten with it.
static struct bytes name_in(uint8_t *key, size_t key_length) {
    uint8_t *name = key + sizeof MAP, *to = name;
    for (uint8_t *from = name; from < key + key_length - 1; from++) {
        *to++ = *from == 1 ? *++from - 1 : *from;
    }
    return (struct bytes){name, to - name};
}

static int64_t number_in(struct bytes stored) {
    struct pb_reader reader = {.rest = stored};
    int64_t value = 0;
    for (struct pb_field field; pb_next(&reader, &field);) {
        if (field.number == 1) pb_int64(&reader, &field, &value);
    }
    return value;
}

static int64_t read_value(const struct key *key) {
    uint8_t stored[PB_INT64_MAX];
    int64_t length = balsa_get(key->at, key->length, stored, sizeof stored);
    return length < 0 ? 0 : number_in((struct bytes){stored, length});
}

static void write_value(const struct key *key, int64_t value) {
    uint8_t room[PB_INT64_MAX];
    struct pb_writer stored = PB_WRITER(room);
    pb_put_int64(&stored, 1, value);
    balsa_put(key->at, key->length, stored.at, stored.length);
}

// --- Commands --------------------------------------------------------------------------------------------------------------

static int32_t add(struct pb_reader request) {
    struct bytes name = {0};
    int64_t amount = 0;
    for (struct pb_field field; pb_next(&request, &field);) {
        if (field.number == 1) pb_string(&request, &field, &name);
        if (field.number == 2) pb_int64(&request, &field, &amount);
    }
    if (request.bad) return refuse_undecodable();
    int32_t refused = check_name(name);
    if (refused) return refused;

    struct key key = key_of(name);
    int64_t value = read_value(&key), sum;
    if (__builtin_add_overflow(value, amount, &sum)) {
        char message[80];
        snprintf(message, sizeof message, "%" PRId64 " + %" PRId64 " does not fit 64 bits", value, amount);
        return refuse(BALSA_OUT_OF_RANGE, message);
    }
    write_value(&key, sum);
    return answer_value(sum);
}

// The request of Remove and of Get: { string name = 1; }
static int32_t read_name(struct pb_reader request, struct bytes *name) {
    for (struct pb_field field; pb_next(&request, &field);) {
        if (field.number == 1) pb_string(&request, &field, name);
    }
    return request.bad ? refuse_undecodable() : check_name(*name);
}

static int32_t remove_counter(struct pb_reader request) {
    struct bytes name = {0};
    int32_t refused = read_name(request, &name);
    if (refused) return refused;
    struct key key = key_of(name);
    int64_t value = read_value(&key);
    balsa_delete(key.at, key.length);
    return answer_value(value);
}

// --- Queries ---------------------------------------------------------------------------------------------------------------

static int32_t get(struct pb_reader request) {
    struct bytes name = {0};
    int32_t refused = read_name(request, &name);
    if (refused) return refused;
    struct key key = key_of(name);
    return answer_value(read_value(&key));
}

// Keys with start <= key < end.
struct range {
    struct bytes start, end;
};

static int compare(struct bytes a, struct bytes b) {
    int order = memcmp(a.at, b.at, a.length < b.length ? a.length : b.length);
    return order ? order : (a.length > b.length) - (a.length < b.length);
}

// Narrows a range to what is behind the last key of the page before. The token is that key without the map's part; the first
// key behind it is the same with a zero byte more. False if it is not of this range.
static bool go_on(struct range *range, struct bytes token) {
    uint8_t *start = malloc(sizeof MAP + token.length + 1);
    memcpy(start, MAP, sizeof MAP);
    memcpy(start + sizeof MAP, token.at, token.length);
    struct bytes last = {start, sizeof MAP + token.length};
    if (last.length > BALSA_STORED_KEY_BYTES_MAX) return false;
    if (compare(last, range->start) < 0 || compare(last, range->end) >= 0) return false;
    start[last.length] = 0;
    range->start = (struct bytes){start, last.length + 1};
    return true;
}

// A page of a scan, which names are taken out of in place.
struct page {
    uint8_t *at;
};

static uint32_t take_u32(struct page *page) {
    uint32_t number;
    memcpy(&number, page->at, sizeof number);
    page->at += sizeof number;
    return number;
}

static struct bytes take_bytes(struct page *page) {
    struct bytes bytes = {.length = take_u32(page)};
    bytes.at = page->at;
    page->at += bytes.length;
    return bytes;
}

// Entry: { string name = 1; int64 value = 2; }
static void put_entry(struct pb_writer *response, struct bytes name, int64_t value) {
    uint8_t room[NAME_MAX + 2 * PB_INT64_MAX];
    struct pb_writer entry = PB_WRITER(room);
    pb_put_bytes(&entry, 1, name);
    pb_put_int64(&entry, 2, value);
    pb_put_message(response, 1, &entry);
}

// The scan's page has a count, one byte that says whether there are more, and the items.
static int32_t list_range(const struct range *range, uint32_t limit) {
    static uint8_t scanned[5 + LIST_MAX * ITEM_MAX], room[LIST_MAX * ITEM_MAX], token[KEY_MAX];
    balsa_scan(range->start.at, range->start.length, range->end.at, range->end.length, 0, limit, sizeof scanned, scanned,
               sizeof scanned);
    struct page page = {scanned};
    uint32_t left = take_u32(&page);
    bool more = *page.at++;

    struct pb_writer response = PB_WRITER(room);
    while (left-- > 0) {
        struct bytes key = take_bytes(&page);
        struct bytes next = {token, key.length - sizeof MAP};
        if (left == 0) memcpy(token, key.at + sizeof MAP, next.length);
        struct bytes name = name_in((uint8_t *)key.at, key.length);
        put_entry(&response, name, number_in(take_bytes(&page)));
        if (left == 0 && more) pb_put_bytes(&response, 2, next);
    }
    return answer(&response);
}

static int32_t list(struct pb_reader request) {
    struct bytes prefix = {0}, token = {0};
    uint32_t limit = 0;
    for (struct pb_field field; pb_next(&request, &field);) {
        if (field.number == 1) pb_string(&request, &field, &prefix);
        if (field.number == 2) pb_uint32(&request, &field, &limit);
        if (field.number == 3) pb_bytes(&request, &field, &token);
    }
    if (request.bad) return refuse_undecodable();
    int32_t refused = check_length(prefix);
    if (refused) return refused;

    // Behind all keys with this prefix is the prefix with its last byte counted up: in UTF-8 no byte is 255.
    struct key start = key_prefix(prefix), end = start;
    end.at[end.length - 1]++;
    struct range range = {{start.at, start.length}, {end.at, end.length}};
    if (token.length != 0 && !go_on(&range, token)) {
        return refuse(BALSA_INVALID_ARGUMENT, "the page token is not of this range");
    }
    return list_range(&range, limit == 0 || limit > LIST_MAX ? LIST_MAX : limit);
}

// --- Exports ---------------------------------------------------------------------------------------------------------------

void balsa_abi_1(void) {}

int32_t balsa_call(uint32_t method, uint32_t input_len) {
    uint8_t *input = malloc(input_len);
    balsa_input_read(input, 0, input_len);
    struct pb_reader request = {.rest = {input, input_len}};
    switch (method) {
    case ADD: return add(request);
    case REMOVE: return remove_counter(request);
    case GET: return get(request);
    case LIST: return list(request);
    default: return BALSA_UNIMPLEMENTED;
    }
}

// The section that says what the module serves. (clang's section attribute would put an array among the data.)
__asm__(".section .custom_section.balsa.module,\"\",@\n.incbin \"module.bin\"\n");
