/* The entry of a plugin library: one exported symbol that returns a constant descriptor.
 *
 * A library is called egw-<kind>-<name>.so with <kind> one of statestore, leaderelection, datapath,
 * and lives in the plugin directory. The host reads the file as ELF first, then lets a forked child
 * open it and call the entry, and only then opens it itself. A library is never unloaded.
 */
#ifndef EGW_ABI_PLUGIN_H
#define EGW_ABI_PLUGIN_H

#include "egw/abi/types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum egw_plugin_kind {
  EGW_KIND_STATE_STORE = 1,
  EGW_KIND_LEADER_ELECTION = 2,
  EGW_KIND_DATAPATH = 3
} egw_plugin_kind;

/* Datapath capability: a service address that DNAT turns into an outside address is judged by the
 * endpoint behind it. */
#define EGW_CAP_POST_DNAT (1ull << 0)
/* Datapath capability: apply() understands deltas (without it the host always sends everything). */
#define EGW_CAP_DELTA (1ull << 1)
/* State store capability: serves processes of one machine only. */
#define EGW_CAP_SINGLE_MACHINE (1ull << 8)

typedef struct egw_plugin_descriptor {
  uint32_t struct_size;
  uint16_t abi_major; /* must equal the host's EGW_ABI_MAJOR */
  uint16_t abi_minor; /* at most the host's, unless the plugin needs nothing newer: see required */
  uint32_t kind;      /* egw_plugin_kind */
  uint32_t reserved;
  egw_str name;      /* [a-z0-9-]{1,32}, as in the file name */
  egw_str version;   /* the plugin's own, free form */
  egw_str build_tag; /* compiler and library versions, for people */
  egw_str config_schema;  /* JSON Schema of `plugins.<kind>.config`; empty: takes no configuration */
  uint64_t capabilities;  /* EGW_CAP_* that the plugin offers */
  uint64_t required;      /* capability bits that the plugin needs from the host; unknown: refused */
  const void* ops;        /* egw_state_store_ops, egw_leader_election_ops or egw_datapath_ops */
  /* Since 1.1. Datapath: [a-z0-9.-]{1,32}, the name of the kernel layout that the plugin has in common
   * with others; empty: it shares nothing. Plugins of one layout recognise the same tunnel device,
   * routes, rules and marks of connections as theirs, and the one that applied last owns them. When a
   * node goes from one to another, the former hands over (egw_datapath_ops.hand_over) what it would
   * purge otherwise. */
  egw_str layout;
} egw_plugin_descriptor;

/* `const egw_plugin_descriptor* egw_plugin_entry_v1(void)`: constant, valid for ever, never NULL. */
typedef const egw_plugin_descriptor* (*egw_plugin_entry_fn)(void);

#define EGW_PLUGIN_ENTRY_SYMBOL "egw_plugin_entry_v1"

#ifdef __cplusplus
}
#endif
#endif /* EGW_ABI_PLUGIN_H */
