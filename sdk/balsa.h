/* ABI 1 of balsa, for modules in C and C++. What each of these does is written in ABI.md; this says it in short.
 *
 * The host calls `balsa_call` (and, if the module exports them, `balsa_init` and `balsa_migrate`) in a fresh instance for each
 * call: nothing but the stored state survives. Constructors run before; they may use balsa_context, balsa_log and balsa_panic
 * only. Results of these exports:
 *
 *   0         success
 *   1 to 16   the gRPC code with this number; the writes of the call are undone, and the output, if there is one, is an
 *             encoded google.rpc.Status (code = 1, message = 2, details = 3) of at most BALSA_STATUS_BYTES_MAX bytes
 *   other     a trap
 *
 * A pointer and a length (or capacity) is a range of the module's memory. A range that is not wholly in memory is a trap. The host
 * keeps no pointer after an import has returned.
 *
 * Compile with clang --target=wasm32-wasi (or wasm32 -nostdlib) -mexec-model=reactor and -Wl,-zstack-size=65536. The module
 * also needs the custom section `balsa.module`: see ABI.md.
 */
#ifndef BALSA_H
#define BALSA_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifdef __wasm__
#define BALSA_IMPORT(name) __attribute__((import_module("balsa_v1"), import_name(#name)))
#define BALSA_EXPORT(name) __attribute__((export_name(#name), visibility("default")))
#else /* For editors, and for tests that bring a host of their own. */
#define BALSA_IMPORT(name)
#define BALSA_EXPORT(name)
#endif

/* ---- Exports: the module defines them. ---- */

/* Required; never called: it says that the module speaks ABI 1. */
BALSA_EXPORT(balsa_abi_1) void balsa_abi_1(void);

/* Required. `method` is a position in the method table of the metadata section, from 0; the input is the encoded request. The
 * output of a unary method is its encoded response, exactly once. Each output of a streaming query is one message; but if the
 * result is a code from 1 to 16, the last output is the status, so a module that fails calls balsa_output once more. */
BALSA_EXPORT(balsa_call) int32_t balsa_call(uint32_t method, uint32_t input_len);

/* To define one of the following two is to export it; leave out what the module has no use for. Both may write, and neither
 * has an output unless it fails.
 *
 *   BALSA_EXPORT(balsa_init) int32_t balsa_init(void) { .. }
 *     Runs when the module's name is activated for the first time, on an empty state.
 *
 *   BALSA_EXPORT(balsa_migrate) int32_t balsa_migrate(uint32_t from_len) { .. }
 *     Runs when the module takes over the state of another one. The input is that module's version, UTF-8 text.
 */

/* ---- Imports: the host defines them. ---- */

/* Copies input[offset .. offset + len] to `to`. Beyond the end of the input: trap. */
BALSA_IMPORT(input_read) void balsa_input_read(void *to, uint32_t offset, uint32_t len);

/* Hands over a result, a message of a stream, or a status. More than BALSA_RESULT_BYTES_MAX: trap. */
BALSA_IMPORT(output) void balsa_output(const void *bytes, uint32_t len);

/* The length of the value stored under `key`, or -1. It is copied to `to` if it fits `cap`; if not, nothing is copied, and
 * balsa_result_read has it. */
BALSA_IMPORT(get) int64_t balsa_get(const void *key, uint32_t key_len, void *to, uint32_t cap);

/* Copies from the result of the last balsa_get or balsa_scan that did not fit its buffer. Beyond its end: trap. */
BALSA_IMPORT(result_read) void balsa_result_read(void *to, uint32_t offset, uint32_t len);

/* Stores a value. In a query, for an empty key or beyond BALSA_STORED_KEY_BYTES_MAX or BALSA_STORED_BYTES_MAX: trap. */
BALSA_IMPORT(put) void balsa_put(const void *key, uint32_t key_len, const void *value, uint32_t value_len);

/* 1 if the key was there, 0 if not. Traps as balsa_put does. */
BALSA_IMPORT(delete) int32_t balsa_delete(const void *key, uint32_t key_len);

/* One page of the keys with start <= key < end: at most `limit` items (and 10 000) and `budget` bytes, but one item at least.
 * Returns the page's length; copies or keeps it as balsa_get does. `flags` are those below. A page:
 *   u32 count, u8 whether there is more; then for each item: u32 key_len, key, u32 value_len, value. Little-endian. */
BALSA_IMPORT(scan)
int64_t balsa_scan(const void *start, uint32_t start_len, const void *end, uint32_t end_len, uint32_t flags, uint32_t limit,
                   uint32_t budget, void *to, uint32_t cap);

#define BALSA_SCAN_REVERSE 1u   /* from the end of the same range down */
#define BALSA_SCAN_KEYS_ONLY 2u /* values are left empty */
#define BALSA_SCAN_NO_END 4u    /* to the last key; `end` is ignored, but must be a range in memory */

/* Writes the first `cap` bytes of a balsa_context_t (or all of it); returns its length, which may grow in later hosts. */
BALSA_IMPORT(context) uint32_t balsa_context(void *to, uint32_t cap);

typedef struct {
    uint64_t index;     /* position of the command in the log; in a query, of the last command it sees */
    uint64_t time_ms;   /* milliseconds since 1970, stamped by the leader; never less than at an earlier index */
    uint8_t random[32]; /* drawn by the leader for this entry: the same on every replica, and no secret */
} balsa_context_t;

/* A line for the node's log: 1 error, 2 warn, 3 info, 4 debug, 5 trace. */
BALSA_IMPORT(log) void balsa_log(uint32_t level, const char *text, uint32_t len);

/* Tells the author of the module what is wrong, just before __builtin_trap(). Returns. */
BALSA_IMPORT(panic) void balsa_panic(const char *text, uint32_t len);

/* ---- Limits ---- */

#define BALSA_STORED_KEY_BYTES_MAX 65600u
#define BALSA_STORED_BYTES_MAX 1048640u
#define BALSA_RESULT_BYTES_MAX 4128768u
#define BALSA_STATUS_BYTES_MAX 4096u
#define BALSA_LOG_BYTES_MAX 4096u

/* ---- gRPC codes ---- */

enum {
    BALSA_OK = 0,
    BALSA_CANCELLED = 1,
    BALSA_UNKNOWN = 2,
    BALSA_INVALID_ARGUMENT = 3,
    BALSA_DEADLINE_EXCEEDED = 4,
    BALSA_NOT_FOUND = 5,
    BALSA_ALREADY_EXISTS = 6,
    BALSA_PERMISSION_DENIED = 7,
    BALSA_RESOURCE_EXHAUSTED = 8,
    BALSA_FAILED_PRECONDITION = 9,
    BALSA_ABORTED = 10,
    BALSA_OUT_OF_RANGE = 11,
    BALSA_UNIMPLEMENTED = 12,
    BALSA_INTERNAL = 13,
    BALSA_UNAVAILABLE = 14,
    BALSA_DATA_LOSS = 15,
    BALSA_UNAUTHENTICATED = 16
};

#ifdef __cplusplus
}
#endif

#endif
