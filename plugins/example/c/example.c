/* A datapath in C11 on egw's header alone. Its "kernel" is a table of objects in memory. What every
 * operation owes the host: egw/abi/datapath.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "egw/abi/datapath.h"
#include "egw/abi/plugin.h"

#define STR(literal) ((egw_str){literal, sizeof(literal) - 1})
#define KEY_SIZE 256

typedef struct object {
  uint32_t type; /* egw_object_type */
  char key[KEY_SIZE];
  uint32_t class_id;    /* endpoint */
  char owner[KEY_SIZE]; /* egress with a peer as owner */
} object;

typedef struct table {
  egw_datapath_host host;
  object* objects;
  size_t count, room;
  int valid; /* the state is the one of `generation` */
  uint64_t generation, applied;
} table;

/* ---- the version rule: what lies beyond struct_size or the stride reads as zero ---- */

static void read_struct(void* out, size_t known, const void* in, size_t written) {
  memset(out, 0, known);
  memcpy(out, in, written < known ? written : known);
}

static void read_record(void* out, size_t known, const egw_span* span, size_t i) {
  const char* at = (const char*)span->data + i * span->stride;
  uint32_t size = 0;
  memcpy(&size, at, sizeof(size)); /* struct_size stands first */
  read_struct(out, known, at, size < span->stride ? size : span->stride);
}

static int32_t answer(const egw_error_sink* error, int32_t status, egw_str what, egw_str message) {
  if (error != NULL && error->set != NULL) error->set(error->ctx, 0, what, message);
  return status;
}

/* ---- the table ---- */

static object* find(table* t, uint32_t type, const char* key) {
  for (size_t i = 0; i < t->count; ++i) {
    if (t->objects[i].type == type && strcmp(t->objects[i].key, key) == 0) return &t->objects[i];
  }
  return NULL;
}

static object* put(table* t, uint32_t type, const char* key) {
  object* o = find(t, type, key);
  if (o != NULL) return o;
  if (t->count == t->room) {
    const size_t room = t->room == 0 ? 64 : 2 * t->room;
    object* more = realloc(t->objects, room * sizeof(*more));
    if (more == NULL) return NULL;
    t->objects = more;
    t->room = room;
  }
  o = &t->objects[t->count++];
  memset(o, 0, sizeof(*o));
  o->type = type;
  snprintf(o->key, sizeof(o->key), "%s", key);
  return o;
}

static void drop(table* t, uint32_t type, const char* key) {
  object* o = find(t, type, key);
  if (o != NULL) *o = t->objects[--t->count];
}

static void text_of(egw_str s, char out[KEY_SIZE]) {
  snprintf(out, KEY_SIZE, "%.*s", (int)(s.len < KEY_SIZE ? s.len : KEY_SIZE - 1), s.data);
}

static void number_text(uint32_t id, char out[KEY_SIZE]) { snprintf(out, KEY_SIZE, "%u", id); }

static void address_text(const egw_addr* a, char out[KEY_SIZE]) {
  if (a->family == 4) {
    snprintf(out, KEY_SIZE, "%u.%u.%u.%u", a->bytes[0], a->bytes[1], a->bytes[2], a->bytes[3]);
    return;
  }
  int at = 0;
  for (int i = 0; i < 16; i += 2) {
    at += snprintf(out + at, (size_t)(KEY_SIZE - at), "%s%x", i == 0 ? "" : ":",
                   (unsigned)(a->bytes[i] << 8 | a->bytes[i + 1]));
  }
}

/* ---- apply ---- */

static int upsert(table* t, const egw_change* c) {
  char key[KEY_SIZE];
  for (size_t i = 0; i < c->peers.count; ++i) {
    egw_peer peer;
    read_record(&peer, sizeof(peer), &c->peers, i);
    text_of(peer.name, key);
    if (put(t, EGW_OBJECT_PEER, key) == NULL) return 0;
  }
  for (size_t i = 0; i < c->egresses.count; ++i) {
    egw_egress egress;
    read_record(&egress, sizeof(egress), &c->egresses, i);
    number_text(egress.id, key);
    object* o = put(t, EGW_OBJECT_EGRESS, key);
    if (o == NULL) return 0;
    o->owner[0] = '\0';
    if (egress.owner == EGW_OWNER_PEER) text_of(egress.owner_peer, o->owner);
  }
  for (size_t i = 0; i < c->classes.count; ++i) {
    egw_class class_;
    read_record(&class_, sizeof(class_), &c->classes, i);
    number_text(class_.id, key);
    if (put(t, EGW_OBJECT_CLASS, key) == NULL) return 0;
  }
  for (size_t i = 0; i < c->endpoints.count; ++i) {
    egw_endpoint endpoint;
    read_record(&endpoint, sizeof(endpoint), &c->endpoints, i);
    address_text(&endpoint.address, key);
    object* o = put(t, EGW_OBJECT_ENDPOINT, key);
    if (o == NULL) return 0;
    o->class_id = endpoint.class_id;
  }
  return 1;
}

/* Arrays of plain values have no struct_size; their stride is their size. */
static void delete_gone(table* t, const egw_change* c) {
  char key[KEY_SIZE];
  for (size_t i = 0; i < c->deleted_peers.count; ++i) {
    text_of(*(const egw_str*)((const char*)c->deleted_peers.data + i * c->deleted_peers.stride),
            key);
    drop(t, EGW_OBJECT_PEER, key);
  }
  const egw_span* ids[2] = {&c->deleted_egresses, &c->deleted_classes};
  for (int k = 0; k < 2; ++k) {
    for (size_t i = 0; i < ids[k]->count; ++i) {
      number_text(*(const uint32_t*)((const char*)ids[k]->data + i * ids[k]->stride), key);
      drop(t, k == 0 ? EGW_OBJECT_EGRESS : EGW_OBJECT_CLASS, key);
    }
  }
  for (size_t i = 0; i < c->deleted_endpoints.count; ++i) {
    address_text(
        (const egw_addr*)((const char*)c->deleted_endpoints.data + i * c->deleted_endpoints.stride),
        key);
    drop(t, EGW_OBJECT_ENDPOINT, key);
  }
}

/* What refers to something that is not there fails alone. */
static size_t report_bad(table* t, const egw_apply_report* report) {
  char key[KEY_SIZE];
  size_t bad = 0;
  for (size_t i = 0; i < t->count; ++i) {
    const object* o = &t->objects[i];
    const egw_str name = {o->key, strlen(o->key)};
    egw_str why = STR("");
    number_text(o->class_id, key);
    if (o->type == EGW_OBJECT_ENDPOINT && find(t, EGW_OBJECT_CLASS, key) == NULL) {
      why = STR("its class does not exist: all its packets are dropped");
    } else if (o->type == EGW_OBJECT_EGRESS && o->owner[0] != '\0' &&
               find(t, EGW_OBJECT_PEER, o->owner) == NULL) {
      why = STR("its owner is no known peer");
    }
    if (why.len == 0) continue;
    ++bad;
    report->failed(report->ctx, o->type, name, 0, why);
  }
  return bad;
}

static int32_t apply(void* instance, const egw_change* change, const egw_apply_report* report,
                     const egw_error_sink* error) {
  table* t = instance;
  egw_change c;
  read_struct(&c, sizeof(c), change, change->struct_size);
  if (!c.full && (!t->valid || c.base != t->generation)) {
    return answer(error, EGW_NEED_FULL, STR(""), STR("another state is held: send everything"));
  }
  if (c.full && c.node == NULL) {
    return answer(error, EGW_INVALID, STR(""), STR("a full change without a node"));
  }
  if (c.full) t->count = 0;
  t->valid = 0;
  delete_gone(t, &c);
  if (!upsert(t, &c)) return answer(error, EGW_INTERNAL, STR(""), STR("out of memory"));
  t->valid = 1;
  t->generation = c.generation;
  ++t->applied;
  if (report_bad(t, report) == 0) return EGW_OK;
  return answer(error, EGW_PARTIAL, STR(""), STR("some objects could not be programmed"));
}

/* ---- the other operations ---- */

static int32_t probe(egw_str config, const egw_node_config* node, const egw_probe_sink* out,
                     const egw_error_sink* error) {
  (void)config, (void)node, (void)error;
  out->finding(out->ctx, 1, STR("Memory"), STR("there is memory"));
  return EGW_OK;
}

static int32_t open_(egw_str config, egw_str state_dir, const egw_datapath_host* host,
                     void** instance, const egw_error_sink* error) {
  table* t = calloc(1, sizeof(*t));
  (void)config, (void)state_dir;
  if (t == NULL) return answer(error, EGW_INTERNAL, STR(""), STR("out of memory"));
  read_struct(&t->host, sizeof(t->host), host, host->struct_size);
  t->host.base.log(t->host.base.ctx, EGW_LOG_DEBUG, STR("opened"));
  *instance = t;
  return EGW_OK;
}

static void close_(void* instance) {
  table* t = instance;
  free(t->objects);
  free(t);
}

static int32_t sysctls(void* instance, const egw_sysctl_sink* out, const egw_error_sink* error) {
  (void)instance, (void)error;
  out->need(out->ctx, STR("net/ipv4/ip_forward"), STR("1"), 1, STR("pods' packets pass this node"));
  return EGW_OK;
}

static int32_t observe(void* instance, const egw_text_sink* out, const egw_error_sink* error) {
  char text[128];
  (void)error;
  const int n = snprintf(text, sizeof(text), "{\"datapath\": \"c-example\", \"objects\": %zu}",
                         ((const table*)instance)->count);
  out->put(out->ctx, (egw_str){text, (size_t)n});
  return EGW_OK;
}

static int32_t counters(void* instance, const egw_counter_sink* out, const egw_error_sink* error) {
  (void)error;
  out->counter(out->ctx, STR("applied"), STR("kind=all"), ((const table*)instance)->applied);
  return EGW_OK;
}

static int32_t health(void* instance, const egw_error_sink* error) {
  (void)instance, (void)error;
  return EGW_OK;
}

static int32_t forget(void* instance, const egw_addr* eip, const egw_error_sink* error) {
  (void)instance, (void)eip, (void)error;
  return EGW_OK; /* this kernel has no connections */
}

static int32_t purge(void* instance, const egw_error_sink* error) {
  table* t = instance;
  (void)error;
  t->count = 0;
  t->valid = 0;
  return EGW_OK;
}

const egw_plugin_descriptor* egw_plugin_entry_v1(void);

__attribute__((visibility("default"))) const egw_plugin_descriptor* egw_plugin_entry_v1(void) {
  static const egw_datapath_ops ops = {.struct_size = sizeof(ops),
                                       .probe = probe,
                                       .open = open_,
                                       .close = close_,
                                       .apply = apply,
                                       .sysctls = sysctls,
                                       .observe = observe,
                                       .counters = counters,
                                       .health = health,
                                       .forget = forget,
                                       .purge = purge};
  static const egw_plugin_descriptor descriptor = {.struct_size = sizeof(descriptor),
                                                   .abi_major = EGW_ABI_MAJOR,
                                                   .abi_minor = EGW_ABI_MINOR,
                                                   .kind = EGW_KIND_DATAPATH,
                                                   .name = {"c-example", 9},
                                                   .version = {"0.1.0", 5},
                                                   .build_tag = {"C11", 3},
                                                   .capabilities = EGW_CAP_DELTA,
                                                   .ops = &ops};
  return &descriptor;
}
