/* A store of an older minor version: its structs end earlier. What it does not write must read as
 * zero. */
#include <stdlib.h>
#include <string.h>

#include "egw/abi/plugin.h"
#include "egw/abi/state_store.h"

#define STR(literal) \
  { literal, sizeof(literal) - 1 }

static int instance;

static int32_t old_open(egw_str config, const egw_store_host* host, void** out,
                        const egw_error_sink* error) {
  (void)config;
  (void)host;
  (void)error;
  *out = &instance;
  return EGW_OK;
}
static void old_close(void* self) { (void)self; }
static int32_t old_subscribe(void* self, const egw_query* query, const egw_event_sink* sink,
                             uint64_t* subscription, const egw_error_sink* error) {
  /* Ends before `message`; behind it lies what must not be read. */
  struct {
    egw_event event;
  } e;
  egw_str name = STR("one");
  egw_str object = STR("{\"a\":1}");
  (void)self;
  (void)query;
  (void)error;
  memset(&e, 0xff, sizeof(e));
  e.event.struct_size = offsetof(egw_event, message);
  e.event.type = EGW_EVENT_UPSERT;
  e.event.revision = 3;
  e.event.namespace_.data = NULL;
  e.event.namespace_.len = 0;
  e.event.name = name;
  e.event.object = object;
  sink->event(sink->ctx, &e.event);
  /* Ends before `namespace_`. */
  e.event.struct_size = offsetof(egw_event, namespace_);
  e.event.type = EGW_EVENT_SYNCED;
  sink->event(sink->ctx, &e.event);
  /* A type of a later version is left out. */
  e.event.type = 77;
  sink->event(sink->ctx, &e.event);
  e.event.type = EGW_EVENT_REVISION;
  e.event.revision = 9;
  sink->event(sink->ctx, &e.event);
  *subscription = 1;
  return EGW_OK;
}
static void old_unsubscribe(void* self, uint64_t subscription) {
  (void)self;
  (void)subscription;
}
static int32_t old_get(void* self, const egw_object_kind* kind, egw_str namespace_, egw_str name,
                       const egw_object_sink* out, const egw_error_sink* error) {
  (void)self;
  (void)kind;
  (void)namespace_;
  (void)name;
  (void)out;
  (void)error;
  return 4711; /* no status that anybody knows */
}
static int32_t old_list(void* self, const egw_query* query, const egw_object_sink* out,
                        const egw_error_sink* error) {
  (void)self;
  (void)query;
  (void)out;
  (void)error;
  return EGW_OK;
}
static int32_t old_write(void* self, const egw_write* write, const egw_object_sink* out,
                         const egw_error_sink* error) {
  (void)self;
  (void)write;
  (void)out;
  (void)error;
  return EGW_OK; /* without an object */
}
static int32_t old_health(void* self, const egw_error_sink* error) {
  (void)self;
  (void)error;
  return EGW_OK;
}

__attribute__((visibility("default"))) const egw_plugin_descriptor* egw_plugin_entry_v1(void) {
  static const egw_state_store_ops ops = {.struct_size = sizeof(ops),
                                          .open = old_open,
                                          .close = old_close,
                                          .subscribe = old_subscribe,
                                          .get = old_get,
                                          .unsubscribe = old_unsubscribe,
                                          .list = old_list,
                                          .write = old_write,
                                          .health = old_health};
  static const egw_plugin_descriptor descriptor = {.struct_size = sizeof(descriptor),
                                                   .abi_major = EGW_ABI_MAJOR,
                                                   .kind = EGW_KIND_STATE_STORE,
                                                   .name = STR("old"),
                                                   .version = STR("0.0.1"),
                                                   .ops = &ops};
  return &descriptor;
}
