/* Leader election: at most one holder at a time, and an epoch that only grows. */
#ifndef EGW_ABI_LEADER_ELECTION_H
#define EGW_ABI_LEADER_ELECTION_H

#include "egw/abi/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Called from a thread of the plugin's own. After `lost` the campaign goes on by itself; a later
 * `elected` carries a greater epoch. No call is made after `resign` or `close` has returned. */
typedef struct egw_election_sink {
  void* ctx;
  void (*elected)(void* ctx, uint64_t epoch);
  void (*lost)(void* ctx, egw_str reason);
  /* Who holds the office now; empty: nobody known. */
  void (*observed)(void* ctx, egw_str holder, uint64_t epoch);
} egw_election_sink;

typedef struct egw_leader_election_ops {
  uint32_t struct_size;
  uint32_t reserved;
  /* identity: unique to this process, e.g. "node1-4711". */
  int32_t (*open)(egw_str config_json, egw_str identity, const egw_host* host, void** instance,
                  const egw_error_sink* error);
  void (*close)(void* instance); /* resigns */
  int32_t (*campaign)(void* instance, const egw_election_sink* sink, const egw_error_sink* error);
  void (*resign)(void* instance); /* gives the office up at once and stops the campaign */
  /* Of an instance that does not stand for election: EGW_NOT_FOUND when nobody who lives holds the
   * office, if the plugin can tell; `egw status` asks so. */
  int32_t (*health)(void* instance, const egw_error_sink* error);
} egw_leader_election_ops;

#ifdef __cplusplus
}
#endif
#endif /* EGW_ABI_LEADER_ELECTION_H */
