/* State store: objects as JSON with a revision. All operations but `subscribe`'s sink are called on
 * the instance's one thread; event sinks may be called from any thread of the plugin's own. */
#ifndef EGW_ABI_STATE_STORE_H
#define EGW_ABI_STATE_STORE_H

#include "egw/abi/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A kind of object, given by the host; a store need not know any kind by heart. */
typedef struct egw_object_kind {
  uint32_t struct_size;
  uint8_t namespaced; /* 0 or 1 */
  uint8_t reserved[3];
  egw_str group; /* empty for the core kinds */
  egw_str version;
  egw_str kind;   /* "EgressGateway" */
  egw_str plural; /* "egressgateways" */
} egw_object_kind;

/* What a subscription or list selects. Empty string: no restriction. */
typedef struct egw_query {
  uint32_t struct_size;
  uint32_t metadata_only; /* 1: nothing but metadata is looked at; a store may give more */
  egw_object_kind kind;
  egw_str namespace_;
  egw_str name;   /* metadata.name */
  egw_str fields; /* comma-separated path=value, e.g. "spec.nodeName=n1" */
  egw_str labels; /* label selector in its text form: "a=b,c!=d,e in (f,g),h,!i" */
} egw_query;

typedef enum egw_event_type {
  EGW_EVENT_SNAPSHOT = 1,     /* a snapshot begins: upserts follow, then SYNCED */
  EGW_EVENT_UPSERT = 2,       /* object: the whole document */
  EGW_EVENT_DELETE = 3,       /* object: the last document known, or empty */
  EGW_EVENT_SYNCED = 4,       /* the snapshot is complete: what it did not name is gone */
  EGW_EVENT_DISCONNECTED = 5, /* the backend cannot be reached; message says why */
  EGW_EVENT_REVISION = 6      /* nothing new up to `revision` (a bookmark) */
} egw_event_type;

typedef struct egw_event {
  uint32_t struct_size;
  uint32_t type; /* egw_event_type */
  uint64_t revision;
  egw_str namespace_;
  egw_str name;
  egw_str object;  /* JSON */
  egw_str message; /* DISCONNECTED */
  /* Since 1.2. SNAPSHOT: which store the objects come from, a text that a store is given when it is
   * made and keeps for ever, in its backups, too. The host keeps what it has when another one answers
   * in its place. Empty: the store does not say. */
  egw_str store;
} egw_event;

/* A subscription delivers SNAPSHOT .. SYNCED first (again after every reconnect), then changes in
 * the order of their revisions. No call is made after unsubscribe has returned. */
typedef struct egw_event_sink {
  void* ctx;
  void (*event)(void* ctx, const egw_event* event);
} egw_event_sink;

typedef enum egw_write_op {
  EGW_WRITE_CREATE = 1,        /* status in the document is ignored, as in Kubernetes */
  EGW_WRITE_UPDATE = 2,        /* metadata and spec; status in the document is ignored */
  EGW_WRITE_UPDATE_STATUS = 3, /* status only; metadata and spec in the document are ignored */
  EGW_WRITE_DELETE = 4         /* with finalizers left: sets metadata.deletionTimestamp */
} egw_write_op;

typedef struct egw_write {
  uint32_t struct_size;
  uint32_t op; /* egw_write_op */
  egw_object_kind kind;
  egw_str namespace_;
  egw_str name;
  egw_str object;             /* JSON; empty for DELETE */
  uint64_t expected_revision; /* 0: whatever is stored */
  uint64_t term;              /* leader's term, 0: not written by a leader */
  uint32_t dry_run;           /* 1: check and answer, store nothing */
  uint32_t deadline_ms;       /* of the whole call */
} egw_write;

/* Takes an object (get, list, write). `warning`: words for the person who wrote the object. */
typedef struct egw_object_sink {
  void* ctx;
  void (*object)(void* ctx, uint64_t revision, egw_str json);
  void (*warning)(void* ctx, egw_str text);
} egw_object_sink;

/* Reads other objects during admission, inside the write's transaction. Returns egw_status. */
typedef struct egw_reader {
  void* ctx;
  int32_t (*get)(void* ctx, const egw_object_kind* kind, egw_str namespace_, egw_str name,
                 const egw_object_sink* out);
  int32_t (*list)(void* ctx, const egw_object_kind* kind, const egw_object_sink* out);
} egw_reader;

/* Takes admission's answer. `object` is called once with the document to store (defaults filled in)
 * when admitted; `denial` once per reason when not. */
typedef struct egw_admission_sink {
  void* ctx;
  void (*object)(void* ctx, egw_str json);
  void (*warning)(void* ctx, egw_str text);
  void (*denial)(void* ctx, egw_str text);
} egw_admission_sink;

/* What the host offers to a store. `admit` is thread-safe, does no I/O of its own, and returns
 * EGW_OK (admitted) or EGW_DENIED. old_json is empty on create, new_json on delete. It is asked for
 * CREATE, UPDATE and DELETE, never for UPDATE_STATUS.
 * serves_admission, 0 or 1: this process answers for writes of others too. A store whose backend
 * asks before it takes a write (a webhook) answers from here until it is closed; others ignore it. */
typedef struct egw_store_host {
  uint32_t struct_size;
  uint32_t serves_admission;
  egw_host base;
  int32_t (*admit)(void* ctx, uint32_t op, const egw_object_kind* kind, egw_str old_json,
                   egw_str new_json, const egw_reader* reader, const egw_admission_sink* out);
  void* admit_ctx;
  /* Since 1.2. 1: this process only looks: where there is no store yet, open fails with
   * EGW_UNAVAILABLE and makes none. 0: a store that the plugin makes by itself may be made. */
  uint32_t existing_only;
  uint32_t reserved;
} egw_store_host;

typedef struct egw_state_store_ops {
  uint32_t struct_size;
  uint32_t reserved;
  int32_t (*open)(egw_str config_json, const egw_store_host* host, void** instance,
                  const egw_error_sink* error);
  void (*close)(void* instance);
  int32_t (*subscribe)(void* instance, const egw_query* query, const egw_event_sink* sink,
                       uint64_t* subscription, const egw_error_sink* error);
  void (*unsubscribe)(void* instance, uint64_t subscription);
  int32_t (*get)(void* instance, const egw_object_kind* kind, egw_str namespace_, egw_str name,
                 const egw_object_sink* out, const egw_error_sink* error);
  int32_t (*list)(void* instance, const egw_query* query, const egw_object_sink* out,
                  const egw_error_sink* error);
  /* On EGW_OK the stored object goes to `out` (for a finished delete: the last document). */
  int32_t (*write)(void* instance, const egw_write* write, const egw_object_sink* out,
                   const egw_error_sink* error);
  /* EGW_OK, or EGW_UNAVAILABLE with the reason. */
  int32_t (*health)(void* instance, const egw_error_sink* error);
} egw_state_store_ops;

#ifdef __cplusplus
}
#endif
#endif /* EGW_ABI_STATE_STORE_H */
