/* A datapath in plain C11 on the ABI alone. plain.c is the good plugin made of it, broken.c its
 * misbehaving siblings. It counts what it holds; observe tells the counts. */
#ifndef EGW_TESTS_ABI_PLAIN_H
#define EGW_TESTS_ABI_PLAIN_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "egw/abi/datapath.h"
#include "egw/abi/plugin.h"

#define STR(literal) \
  { literal, sizeof(literal) - 1 }

typedef struct plain {
  egw_datapath_host host;
  uint64_t generation;
  size_t peers, egresses, classes, endpoints, cidrs, rules;
  unsigned address_sum; /* of all endpoints' last bytes */
  unsigned mac_sum;
  char node[64];
} plain;

static void set_error(const egw_error_sink* error, const char* message) {
  egw_str what = {NULL, 0};
  egw_str text = {message, strlen(message)};
  if (error != NULL) error->set(error->ctx, 0, what, text);
}

static int32_t plain_probe(egw_str config, const egw_node_config* node, const egw_probe_sink* out,
                           const egw_error_sink* error) {
  egw_str code = STR("PlainC");
  (void)config;
  (void)error;
  out->finding(out->ctx, 1, code, node->name);
  return EGW_OK;
}

static int32_t plain_open(egw_str config, egw_str state_dir, const egw_datapath_host* host,
                          void** instance, const egw_error_sink* error) {
  egw_str hello = STR("opened");
  plain* self = calloc(1, sizeof(*self));
  (void)config;
  (void)state_dir;
  if (self == NULL) {
    set_error(error, "out of memory");
    return EGW_INTERNAL;
  }
  memcpy(&self->host, host,
         host->struct_size < sizeof(self->host) ? host->struct_size : sizeof(self->host));
  self->host.base.log(self->host.base.ctx, EGW_LOG_INFO, hello);
  *instance = self;
  return EGW_OK;
}

static void plain_close(void* instance) { free(instance); }

static const void* at(const egw_span* span, size_t i) {
  return (const char*)span->data + i * span->stride;
}

static int32_t plain_apply(void* instance, const egw_change* change, const egw_apply_report* report,
                           const egw_error_sink* error) {
  plain* self = instance;
  size_t i;
  if (!change->full && change->base != self->generation) {
    set_error(error, "another base");
    return EGW_NEED_FULL;
  }
  if (change->full) {
    self->peers = self->egresses = self->classes = self->endpoints = 0;
    self->cidrs = self->rules = 0;
    self->address_sum = self->mac_sum = 0;
  }
  self->generation = change->generation;
  if (change->node != NULL) {
    snprintf(self->node, sizeof(self->node), "%.*s", (int)change->node->name.len,
             change->node->name.data);
  }
  self->peers += change->peers.count;
  self->egresses += change->egresses.count;
  self->classes += change->classes.count;
  self->endpoints += change->endpoints.count - change->deleted_endpoints.count;
  for (i = 0; i < change->peers.count; ++i) {
    const egw_peer* peer = at(&change->peers, i);
    self->cidrs += peer->pod_cidrs.count;
    self->mac_sum += peer->mac[5];
  }
  for (i = 0; i < change->classes.count; ++i) {
    self->rules += ((const egw_class*)at(&change->classes, i))->rules.count;
  }
  for (i = 0; i < change->endpoints.count; ++i) {
    const egw_endpoint* endpoint = at(&change->endpoints, i);
    self->address_sum += endpoint->address.bytes[endpoint->address.family == 4 ? 3 : 15];
  }
  if (change->egresses.count > 0) {
    const egw_egress* first = at(&change->egresses, 0);
    if (first->id == 13) {
      egw_str key = STR("13");
      egw_str why = STR("unlucky");
      report->failed(report->ctx, EGW_OBJECT_EGRESS, key, 5, why);
      set_error(error, "one failed");
      return EGW_PARTIAL;
    }
  }
  return EGW_OK;
}

static int32_t plain_sysctls(void* instance, const egw_sysctl_sink* out,
                             const egw_error_sink* error) {
  egw_str key = STR("net/ipv4/ip_forward");
  egw_str value = STR("1");
  egw_str why = STR("packets pass");
  (void)instance;
  (void)error;
  out->need(out->ctx, key, value, 1, why);
  return EGW_OK;
}

static int32_t plain_observe(void* instance, const egw_text_sink* out,
                             const egw_error_sink* error) {
  const plain* self = instance;
  char text[512];
  egw_str answer;
  (void)error;
  answer.len = (size_t)snprintf(
      text, sizeof(text),
      "{\"node\":\"%s\",\"generation\":%llu,\"peers\":%zu,\"cidrs\":%zu,\"macs\":%u,"
      "\"egresses\":%zu,\"classes\":%zu,\"rules\":%zu,\"endpoints\":%zu,\"addresses\":%u}",
      self->node, (unsigned long long)self->generation, self->peers, self->cidrs, self->mac_sum,
      self->egresses, self->classes, self->rules, self->endpoints, self->address_sum);
  answer.data = text;
  out->put(out->ctx, answer);
  return EGW_OK;
}

static int32_t plain_counters(void* instance, const egw_counter_sink* out,
                              const egw_error_sink* error) {
  egw_str name = STR("applied");
  egw_str labels = STR("dir=out");
  (void)error;
  out->counter(out->ctx, name, labels, ((const plain*)instance)->generation);
  return EGW_OK;
}

static int32_t plain_health(void* instance, const egw_error_sink* error) {
  (void)instance;
  (void)error;
  return EGW_OK;
}

static int32_t plain_forget(void* instance, const egw_addr* eip, const egw_error_sink* error) {
  plain* self = instance;
  egw_str what = STR("element");
  if (eip->family != 4) {
    set_error(error, "IPv4 only");
    return EGW_UNSUPPORTED;
  }
  self->host.drifted(self->host.drifted_ctx, what);
  return EGW_OK;
}

static int32_t plain_purge(void* instance, const egw_error_sink* error) {
  (void)instance;
  set_error(error, "nothing\nto\xff purge");
  return EGW_NOT_FOUND;
}

#define PLAIN_OPS                                                                      \
  {                                                                                    \
    .struct_size = sizeof(egw_datapath_ops), .probe = plain_probe, .open = plain_open, \
    .close = plain_close, .apply = plain_apply, .sysctls = plain_sysctls,              \
    .observe = plain_observe, .counters = plain_counters, .health = plain_health,      \
    .forget = plain_forget, .purge = plain_purge                                       \
  }

#define EXPORT __attribute__((visibility("default")))

#endif /* EGW_TESTS_ABI_PLAIN_H */
