/* Value types that cross the plugin boundary. Included by every other ABI header; plain C11.
 *
 * Ownership rule for the whole ABI: every pointer is borrowed for the duration of the call that
 * carries it. Whoever needs the bytes later copies them. Nothing allocated on one side of the
 * boundary is freed on the other: results travel through sinks (callbacks) that the caller gives.
 *
 * Version rule: every struct that may grow begins with `struct_size`, the size that the writer
 * knew. A reader uses a field only if it lies wholly inside `struct_size`; a missing field reads
 * as zero, and zero always means "not given". Arrays carry their stride for the same reason.
 * A struct that stands inside another one by value grows only with a new major.
 *
 * Sinks: the struct is borrowed like everything else (copy it where it is kept); the `ctx` of an
 * event or election sink stays valid until the unsubscribe, resign or close that ends it has
 * returned.
 */
#ifndef EGW_ABI_TYPES_H
#define EGW_ABI_TYPES_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EGW_ABI_MAJOR 1
#define EGW_ABI_MINOR 2 /* what each minor added: docs/abi.md */

/* UTF-8, not NUL-terminated. `data` may be NULL only when `len` is 0. */
typedef struct egw_str {
  const char* data;
  size_t len;
} egw_str;

/* `count` records, the i-th at (const char*)data + i * stride. */
typedef struct egw_span {
  const void* data;
  size_t count;
  size_t stride;
} egw_span;

/* An IP address. family: 0 (none), 4 or 6. IPv4 stands in bytes[0..3]; network byte order. */
typedef struct egw_addr {
  uint8_t family;
  uint8_t reserved[3];
  uint8_t bytes[16];
} egw_addr;

/* Host bits are zero. len: 0..32 or 0..128. */
typedef struct egw_prefix {
  egw_addr addr;
  uint8_t len;
  uint8_t reserved[3];
} egw_prefix;

/* What an operation returns. Anything but EGW_OK comes with a message in the error sink. */
typedef enum egw_status {
  EGW_OK = 0,
  EGW_INVALID = 1,       /* the request can never succeed as it is */
  EGW_NOT_FOUND = 2,     /* the object does not exist */
  EGW_EXISTS = 3,        /* create: the object exists already */
  EGW_CONFLICT = 4,      /* the expected revision is not the stored one */
  EGW_DENIED = 5,        /* admission or permission refused it */
  EGW_STALE_TERM = 6,    /* the write carries a term lower than one already seen */
  EGW_UNAVAILABLE = 7,   /* the backend cannot be reached now; try again */
  EGW_NEED_FULL = 8,     /* apply: a delta does not fit what the plugin holds; send everything */
  EGW_PARTIAL = 9,       /* apply: done, but for the objects reported through the report sink */
  EGW_UNSUPPORTED = 10,  /* this kernel, backend or plugin cannot do it */
  EGW_INTERNAL = 11      /* a defect or an unexpected answer; the message says which */
} egw_status;

typedef enum egw_log_level {
  EGW_LOG_DEBUG = 0,
  EGW_LOG_INFO = 1,
  EGW_LOG_WARN = 2,
  EGW_LOG_ERROR = 3
} egw_log_level;

/* Takes the explanation of a status other than EGW_OK. `what`: the object or key concerned (may be
 * empty). `sys_errno`: 0 or an errno value. Called at most once per operation; the last call wins. */
typedef struct egw_error_sink {
  void* ctx;
  void (*set)(void* ctx, int32_t sys_errno, egw_str what, egw_str message);
} egw_error_sink;

/* Takes a string result (JSON where the operation says so). */
typedef struct egw_text_sink {
  void* ctx;
  void (*put)(void* ctx, egw_str text);
} egw_text_sink;

/* What the host offers to every plugin instance. Valid from `open` until `close` has returned; the
 * functions may be called from any thread and never block. */
typedef struct egw_host {
  uint32_t struct_size;
  uint32_t reserved;
  void* ctx;
  void (*log)(void* ctx, int32_t level, egw_str message);
} egw_host;

#ifdef __cplusplus
}
#endif
#endif /* EGW_ABI_TYPES_H */
