/* Keys and values of the maps: one definition for the programs (egw.bpf.c) and for maps.cpp. What
 * changes here changes EGW_BPF_LAYOUT, so that a newer plugin does not take over older maps. */
#ifndef EGW_EBPF_LAYOUT_H
#define EGW_EBPF_LAYOUT_H

#include <linux/types.h>

#define EGW_BPF_LAYOUT 4

#define EGW_ID_MASK 0x3fffu
#define EGW_IDS (EGW_ID_MASK + 1)
#define EGW_MAX_ENDPOINTS 131072 /* IPv6 */
#define EGW_BUCKETS 32768        /* IPv4 endpoints: places for twice as many */
#define EGW_BUCKET 8
#define EGW_MAX_PREFIXES 262144 /* of all classes, one family */
#define EGW_MAX_CLUSTER 16384

/* A number's meaning, as in plugins/common/layout.hpp: an egress id, or one of these. */
#define EGW_NUMBER_BYPASS 0x40000002u
#define EGW_NUMBER_CLASS 0x80000000u
#define EGW_CLASS_MASK 0x0001ffffu
#define EGW_EARLY_SHIFT 17 /* in the priority: the id, above the class's own number */

/* What becomes of packets with an id, by family. */
enum egw_mode { EGW_MODE_DROP = 0, EGW_MODE_STEER = 1, EGW_MODE_OWN = 2 };

/* Eight bytes, written in one: an egress IP moves at once. */
struct egw_owner {
  __u8 mode[2]; /* IPv4, IPv6 */
  __u8 mac[6];  /* of the owner; all zero: none */
};

/* A peer's MAC by its number; all zero: none. */
struct egw_back {
  __u8 mac[6];
  __u8 pad[2];
};

struct egw_address6 {
  __u32 word[4];
};

/* IPv4 endpoints stand in an array that the plugin writes through memory, because 50,000 calls of
 * the kernel take 40 ms: each in one of two buckets that its address gives. Eight bytes, written in
 * one: the number above the address as it is in memory; 0: free. */
struct egw_bucket4 {
  __u64 slot[EGW_BUCKET];
};

/* The two buckets: the low 15 bits, and the high 15 bits. */
static inline __u32 egw_hash4(__u32 address) {
  address = (address ^ address >> 16) * 0x7feb352du;
  address = (address ^ address >> 15) * 0x846ca68bu;
  return address ^ address >> 16;
}
static inline __u32 egw_bucket_of(__u32 hash, int second) {
  return second ? hash >> 17 : hash & (EGW_BUCKETS - 1);
}

/* Most significant first: LPM keys are bit strings. */
struct egw_prefix4 {
  __u32 length;
  __be32 number; /* a class's, of all its bits; 0 in the map of cluster prefixes */
  __be32 address;
};
struct egw_prefix6 {
  __u32 length;
  __be32 number;
  struct egw_address6 address;
};

struct egw_settings {
  __u32 slot_mask;
  __u32 slot_early, slot_late, slot_steer, slot_back, slot_outer; /* values within slot_mask */
  __u32 mtu;                                                      /* of the tunnel device */
  __u32 tunnel;                                                   /* its index */
  __be32 tunnel4; /* this node's tunnel addresses; 0: none */
  struct egw_address6 tunnel6;
  __u8 mac[6]; /* of the tunnel device */
  __u8 pad[2];
};

struct egw_count {
  __u64 packets, bytes;
};

/* Why a program dropped a packet: index of the map `drops`. */
enum egw_reason { EGW_NOT_STEERED, EGW_NO_OWNER, EGW_NO_PEER, EGW_MALFORMED, EGW_REASONS };

#ifdef __cplusplus
static_assert(sizeof(egw_owner) == 8 && sizeof(egw_back) == 8 && sizeof(egw_prefix4) == 12 &&
              sizeof(egw_prefix6) == 24 && sizeof(egw_settings) == 60 && sizeof(egw_count) == 16 &&
              sizeof(egw_bucket4) == 64 && EGW_BUCKETS == 1 << 15);
#endif
#endif /* EGW_EBPF_LAYOUT_H */
