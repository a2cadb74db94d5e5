/* The programs of the ebpf datapath, at tc of the interfaces (README.md). They look at single
 * packets and mark them; conntrack, NAT, routing and other people's rules decide afterwards.
 *
 * egw_pod     ingress of the interfaces that pods' packets come in by: whose packet it is, and
 * where it shall go. egw_tunnel  egress of the tunnel device: only what belongs into it, to the
 * right node.
 *
 * Only UAPI types are used: no BTF of a kernel is needed to build or to load them. */
// The helpers' header needs the types of linux/bpf.h before it.
// clang-format off
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
// clang-format on
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <stdbool.h>
#include <stddef.h>

#include "layout.h"

#define VLAN_ID 0x0fff
#define MOST_TAGS 8

/* Others' programs behind ours still see the packet: TC_ACT_UNSPEC, and TCX_NEXT of tcx. */
#define NEXT (-1)

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, EGW_BUCKETS);
  __type(key, __u32);
  __type(value, struct egw_bucket4);
} endpoints4 SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, EGW_MAX_ENDPOINTS);
  __type(key, struct egw_address6);
  __type(value, __u32);
} endpoints6 SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_LPM_TRIE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, EGW_MAX_PREFIXES);
  __type(key, struct egw_prefix4);
  __type(value, __u32);
} classes4 SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_LPM_TRIE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, EGW_MAX_PREFIXES);
  __type(key, struct egw_prefix6);
  __type(value, __u32);
} classes6 SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_LPM_TRIE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, EGW_MAX_CLUSTER);
  __type(key, struct egw_prefix4);
  __type(value, __u32);
} cluster4 SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_LPM_TRIE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, EGW_MAX_CLUSTER);
  __type(key, struct egw_prefix6);
  __type(value, __u32);
} cluster6 SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, EGW_IDS);
  __type(key, __u32);
  __type(value, struct egw_owner);
} owners SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, EGW_IDS);
  __type(key, __u32);
  __type(value, struct egw_back);
} backs SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct egw_settings);
} settings SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, EGW_REASONS);
  __type(key, __u32);
  __type(value, __u64);
} drops SEC(".maps");

/* What entered the tunnel, by id; EGW_IDS for each CPU: the kernel takes 40 ms to make a per-CPU
 * array of that size. The number of CPUs is set when it is loaded. */
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, EGW_IDS);
  __type(key, __u32);
  __type(value, struct egw_count);
} steered SEC(".maps");

/* What a class's endpoints sent, by the low 14 bits of the class's number. Each family has numbers
 * of its own. */
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, EGW_IDS);
  __type(key, __u32);
  __type(value, struct egw_count);
} judged4 SEC(".maps"), judged6 SEC(".maps");

static __always_inline int drop(__u32 reason) {
  __u64* count = bpf_map_lookup_elem(&drops, &reason);
  if (count) ++*count;
  return TC_ACT_SHOT;
}

static __always_inline void tally(void* map, __u32 index, __u32 bytes) {
  index += bpf_get_smp_processor_id() * EGW_IDS;
  struct egw_count* count = bpf_map_lookup_elem(map, &index);
  if (!count) return;
  ++count->packets;
  count->bytes += bytes;
}

static __always_inline const struct egw_settings* read_settings(void) {
  __u32 zero = 0;
  return bpf_map_lookup_elem(&settings, &zero);
}

static __always_inline int load(struct __sk_buff* skb, __u32 offset, void* to, __u32 length) {
  return bpf_skb_load_bytes_relative(skb, offset, to, length, BPF_HDR_START_NET);
}

/* The network layer's header. Of packets of packet sockets it may lie behind the part that the
 * helper reads: those are IP packets all the same. */
static __always_inline int load_header(struct __sk_buff* skb, __u32 offset, void* to,
                                       __u32 length) {
  if (load(skb, offset, to, length) == 0) return 0;
  if (bpf_skb_pull_data(skb, sizeof(struct ethhdr) + offset + length) < 0) return -1;
  return load(skb, offset, to, length);
}

/* The number of an IPv4 endpoint; 0: it is none. */
static __always_inline __u32 find4(__be32 address) {
  __u32 hash = egw_hash4(address);
#pragma unroll
  for (int second = 0; second < 2; ++second) {
    __u32 at = egw_bucket_of(hash, second);
    const struct egw_bucket4* bucket = bpf_map_lookup_elem(&endpoints4, &at);
    if (!bucket) return 0;
#pragma unroll
    for (int i = 0; i < EGW_BUCKET; ++i) {
      __u64 slot = *(const volatile __u64*)&bucket->slot[i];
      if ((__u32)slot == address) return slot >> 32;
    }
  }
  return 0;
}

/* A packet that has been judged at the port of a bridge comes by here no more than once: netfilter
 * in the bridge has done the rest. Others may set bits of the mark before it is known whether the
 * packet is steered, so only the slot is used. */
static __always_inline int judge(struct __sk_buff* skb, const struct egw_settings* s, __u32 number,
                                 __u32 action, int family) {
  __u32 own = number & EGW_NUMBER_CLASS ? number & EGW_CLASS_MASK : 0;
  if (own && own <= EGW_ID_MASK) tally(family ? (void*)&judged6 : (void*)&judged4, own, skb->len);
  const struct egw_owner* owner = 0;
  if (action <= EGW_ID_MASK) owner = bpf_map_lookup_elem(&owners, &action);
  if (owner && owner->mode[family] == EGW_MODE_STEER) {
    skb->mark |= s->slot_early;
    skb->priority = action << EGW_EARLY_SHIFT | own;
  } else {
    skb->mark |= s->slot_late;
    skb->priority = number;
  }
  return NEXT;
}

static __always_inline int pod4(struct __sk_buff* skb, __u32 at) {
  struct iphdr ip;
  if (load_header(skb, at, &ip, sizeof(ip)) < 0) return NEXT;
  __u32 number = find4(ip.saddr), action = number;
  if (!number) return NEXT;
  const struct egw_settings* s = read_settings();
  if (!s || (skb->mark & s->slot_mask)) return NEXT;
  struct egw_prefix4 key = {.length = 64, .number = 0, .address = ip.daddr};
  if (bpf_map_lookup_elem(&cluster4, &key)) {
    action = EGW_NUMBER_BYPASS;
  } else if (number & EGW_NUMBER_CLASS) {
    key.number = bpf_htonl(number);
    const __u32* found = bpf_map_lookup_elem(&classes4, &key);
    action = found ? *found : EGW_NUMBER_BYPASS;
  }
  return judge(skb, s, number, action, 0);
}

static __always_inline int pod6(struct __sk_buff* skb, __u32 at) {
  struct ipv6hdr ip;
  if (load_header(skb, at, &ip, sizeof(ip)) < 0) return NEXT;
  struct egw_address6 source;
  __builtin_memcpy(&source, &ip.saddr, sizeof(source));
  __u32* known = bpf_map_lookup_elem(&endpoints6, &source);
  const struct egw_settings* s = read_settings();
  if (!known || !s || (skb->mark & s->slot_mask)) return NEXT;
  __u32 number = *known, action = number;
  struct egw_prefix6 key = {.length = 160, .number = 0};
  __builtin_memcpy(&key.address, &ip.daddr, sizeof(key.address));
  if (bpf_map_lookup_elem(&cluster6, &key)) {
    action = EGW_NUMBER_BYPASS;
  } else if (number & EGW_NUMBER_CLASS) {
    key.number = bpf_htonl(number);
    const __u32* found = bpf_map_lookup_elem(&classes6, &key);
    action = found ? *found : EGW_NUMBER_BYPASS;
  }
  return judge(skb, s, number, action, 1);
}

static __always_inline bool is_tag(__u32 protocol) {
  return protocol == bpf_htons(ETH_P_8021Q) || protocol == bpf_htons(ETH_P_8021AD);
}

/* What the network layer gets of a packet: its protocol, and in the upper half where its header
 * begins; 0: nothing, because a VLAN's packets are judged at the VLAN's interface. Tags of id 0 the
 * kernel takes off (net/core/dev.c, check_vlan_id), and nobody is asked again. A function of its
 * own, so that the verifier looks at it once. */
__noinline __u32 network(struct __sk_buff* skb) {
  if (!skb) return 0;
  __u32 protocol = skb->protocol, at = 0;
  if (skb->vlan_present && (skb->vlan_tci & VLAN_ID)) return 0;
  for (int i = 0; i < MOST_TAGS && is_tag(protocol); ++i) {
    struct {
      __be16 tci, protocol;
    } tag;
    if (load_header(skb, at, &tag, sizeof(tag)) < 0 || (tag.tci & bpf_htons(VLAN_ID))) return 0;
    protocol = tag.protocol;
    at += sizeof(tag);
  }
  return at << 16 | protocol;
}

static __always_inline int pod(struct __sk_buff* skb) {
  __u32 protocol = skb->protocol, at = 0;
  if (skb->vlan_present || is_tag(protocol)) {
    const __u32 found = network(skb);
    at = found >> 16;
    protocol = found & 0xffff;
  }
  if (protocol == bpf_htons(ETH_P_IP)) return pod4(skb, at);
  if (protocol == bpf_htons(ETH_P_IPV6)) return pod6(skb, at);
  /* Nobody tags like this who wants to be understood. */
  return is_tag(protocol) ? drop(EGW_MALFORMED) : NEXT;
}

SEC("tc")
int egw_pod(struct __sk_buff* skb) { return pod(skb); }

#ifdef EGW_FAST
#include "fast.h"
#endif

/* ---- the tunnel device ------------------------------------------------------------------- */

/* Where TCP begins, from the network header; 0: no TCP here, or a later fragment. */
static __always_inline __u32 tcp4(struct __sk_buff* skb, __be32* source) {
  struct iphdr ip;
  if (load(skb, 0, &ip, sizeof(ip)) < 0) return 0;
  *source = ip.saddr;
  if (ip.protocol != IPPROTO_TCP || (ip.frag_off & bpf_htons(0x1fff))) return 0;
  return ip.ihl * 4u;
}

static __always_inline __u32 tcp6(struct __sk_buff* skb, struct egw_address6* source) {
  struct ipv6hdr ip;
  if (load(skb, 0, &ip, sizeof(ip)) < 0) return 0;
  __builtin_memcpy(source, &ip.saddr, sizeof(*source));
  __u8 next = ip.nexthdr;
  __u32 at = sizeof(ip);
#pragma unroll
  for (int i = 0; i < 6; ++i) {
    __u8 header[4];
    if (next == IPPROTO_TCP) return at;
    if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS &&
        next != IPPROTO_FRAGMENT) {
      return 0;
    }
    if (load(skb, at, header, sizeof(header)) < 0) return 0;
    /* Bits 3 to 15 of a fragment header's third and fourth byte are the offset. */
    if (next == IPPROTO_FRAGMENT && (header[2] | (header[3] & 0xf8))) return 0;
    at += next == IPPROTO_FRAGMENT ? 8 : (header[1] + 1u) * 8;
    next = header[0];
  }
  return 0;
}

/* Lowers the maximum segment size that a SYN names to what fits the tunnel. A function of its own,
 * so that the verifier looks at it once. tcp: as found; most: at most 65535. */
__noinline int clamp(struct __sk_buff* skb, __u32 tcp, __u32 most) {
  struct tcphdr h;
  if (!skb || load(skb, tcp, &h, sizeof(h)) < 0 || !h.syn || h.rst) return 0;
  __u32 at = tcp + sizeof(h), end = tcp + h.doff * 4u;
  for (int i = 0; i < 40 && at + 4 <= end; ++i) {
    __u8 option[4];
    if (load(skb, at, option, sizeof(option)) < 0 || option[0] == 0) return 0;
    if (option[0] == 1) {
      ++at;
      continue;
    }
    if (option[0] == 2 && option[1] == 4) {
      __u16 had = (option[2] << 8) | option[3];
      if (had <= most) return 0;
      __be16 from = bpf_htons(had), to = bpf_htons(most);
      __u32 frame = sizeof(struct ethhdr);
      bpf_skb_store_bytes(skb, frame + at + 2, &to, sizeof(to), 0);
      /* The sum is over 16-bit words from the header's start. */
      if ((at - tcp) & 1) {
        from = (from >> 8) | (from << 8);
        to = (to >> 8) | (to << 8);
      }
      bpf_l4_csum_replace(skb, frame + tcp + offsetof(struct tcphdr, check), from, to, sizeof(to));
      return 0;
    }
    if (option[1] < 2) return 0;
    at += option[1];
  }
  return 0;
}

static __always_inline int enter(struct __sk_buff* skb, const __u8* mac, __u32 mark) {
  if (bpf_skb_store_bytes(skb, 0, mac, ETH_ALEN, 0) < 0) return drop(EGW_MALFORMED);
  skb->mark = mark;
  return NEXT;
}

static __always_inline bool none(const __u8* mac) {
  return !(mac[0] | mac[1] | mac[2] | mac[3] | mac[4] | mac[5]);
}

SEC("tc")
int egw_tunnel(struct __sk_buff* skb) {
  const struct egw_settings* s = read_settings();
  if (!s) return drop(EGW_NOT_STEERED);
  __u32 slot = skb->mark & s->slot_mask, index = skb->mark & EGW_ID_MASK;
  const int family = skb->protocol == bpf_htons(ETH_P_IPV6);
  bool own = false;
  if (skb->protocol == bpf_htons(ETH_P_IP)) {
    __be32 source = 0;
    __u32 tcp = tcp4(skb, &source);
    if (tcp) clamp(skb, tcp, s->mtu - 40);
    own = s->tunnel4 && source == s->tunnel4;
  } else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
    struct egw_address6 source = {};
    __u32 tcp = tcp6(skb, &source);
    if (tcp) clamp(skb, tcp, s->mtu - 60);
    own = s->tunnel6.word[0] && source.word[0] == s->tunnel6.word[0] &&
          source.word[1] == s->tunnel6.word[1] && source.word[2] == s->tunnel6.word[2] &&
          source.word[3] == s->tunnel6.word[3];
  }
  if (slot == s->slot_steer) {
    const struct egw_owner* owner = bpf_map_lookup_elem(&owners, &index);
    /* Owned here and with a MAC: connections that go on by way of the former owner. */
    if (!owner || owner->mode[family] == EGW_MODE_DROP || none(owner->mac)) {
      return drop(EGW_NO_OWNER);
    }
    tally(&steered, index, skb->len);
    return enter(skb, owner->mac, index | s->slot_outer);
  }
  if (slot == s->slot_back) {
    const struct egw_back* peer = bpf_map_lookup_elem(&backs, &index);
    if (!peer || none(peer->mac)) return drop(EGW_NO_PEER);
    /* Another program of egw may be behind this one, while a restarted agent changes them. */
    return enter(skb, peer->mac, s->slot_outer);
  }
  /* Directed by the tables of the netlink datapath, which this one follows or precedes. */
  if (slot == s->slot_outer) return NEXT;
  if (!own) return drop(EGW_NOT_STEERED);
  skb->mark = 0;
  return NEXT;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
