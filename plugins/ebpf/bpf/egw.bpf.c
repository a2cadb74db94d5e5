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

/* What a class's endpoints sent, by the low 14 bits of the class's number. */
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, EGW_IDS);
  __type(key, __u32);
  __type(value, struct egw_count);
} judged SEC(".maps");

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
 * in the bridge has done the rest. A VLAN's packets are judged at the VLAN's interface. Others may
 * set bits of the mark before it is known whether the packet is steered, so only the slot is used.
 */
static __always_inline int judge(struct __sk_buff* skb, const struct egw_settings* s, __u32 number,
                                 __u32 action, int family) {
  __u32 own = number & EGW_NUMBER_CLASS ? number & EGW_CLASS_MASK : 0;
  if (own) tally(&judged, own & EGW_ID_MASK, skb->len);
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

static __always_inline int pod4(struct __sk_buff* skb) {
  struct iphdr ip;
  if (load(skb, 0, &ip, sizeof(ip)) < 0) return NEXT;
  __u32 number = find4(ip.saddr), action = number;
  if (!number) return NEXT;
  const struct egw_settings* s = read_settings();
  if (!s || skb->vlan_present || (skb->mark & s->slot_mask)) return NEXT;
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

static __always_inline int pod6(struct __sk_buff* skb) {
  struct ipv6hdr ip;
  if (load(skb, 0, &ip, sizeof(ip)) < 0) return NEXT;
  struct egw_address6 source;
  __builtin_memcpy(&source, &ip.saddr, sizeof(source));
  __u32* known = bpf_map_lookup_elem(&endpoints6, &source);
  const struct egw_settings* s = read_settings();
  if (!known || !s || skb->vlan_present || (skb->mark & s->slot_mask)) return NEXT;
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

static __always_inline int pod(struct __sk_buff* skb) {
  if (skb->protocol == bpf_htons(ETH_P_IP)) return pod4(skb);
  if (skb->protocol == bpf_htons(ETH_P_IPV6)) return pod6(skb);
  return NEXT;
}

SEC("tc")
int egw_pod(struct __sk_buff* skb) { return pod(skb); }

/* ---- fastPath: straight into the tunnel and back ----------------------------------------- */

struct nf_conn {
  unsigned long status;
} __attribute__((preserve_access_index));
/* As in the kernel's nf_conntrack_bpf.c since 5.18. */
struct ct_options {
  __s32 netns_id;
  __s32 error;
  __u8 l4proto, dir;
  __u8 reserved[2];
};
extern struct nf_conn* bpf_skb_ct_lookup(struct __sk_buff* skb, struct bpf_sock_tuple* tuple,
                                         __u32 tuple_size, struct ct_options* options,
                                         __u32 options_size) __ksym;
extern void bpf_ct_release(struct nf_conn* ct) __ksym;

/* Connections that conntrack knows were opened from outside, or before fastPath was set, or have a
 * translation: they go on as they began. */
static __always_inline bool tracked(struct __sk_buff* skb, struct bpf_sock_tuple* tuple, __u32 size,
                                    __u8 protocol) {
  struct ct_options options = {.netns_id = -1, .l4proto = protocol};
  struct nf_conn* ct = bpf_skb_ct_lookup(skb, tuple, size, &options, sizeof(options));
  if (!ct) return false;
  bpf_ct_release(ct);
  return true;
}

struct packet4 {
  struct iphdr ip;
  __be16 source, destination; /* ports */
};
struct packet6 {
  struct ipv6hdr ip;
  __be16 source, destination;
};

/* Plain TCP and UDP; all else goes the long way. */
static __always_inline bool plain4(struct __sk_buff* skb, struct packet4* p) {
  if (load(skb, 0, p, sizeof(*p)) < 0 || p->ip.ihl != 5 || p->ip.ttl <= 1) return false;
  if (p->ip.frag_off & bpf_htons(0x3fff)) return false;
  if (p->ip.protocol != IPPROTO_TCP && p->ip.protocol != IPPROTO_UDP) return false;
  struct bpf_sock_tuple tuple = {};
  tuple.ipv4.saddr = p->ip.saddr;
  tuple.ipv4.daddr = p->ip.daddr;
  tuple.ipv4.sport = p->source;
  tuple.ipv4.dport = p->destination;
  return !tracked(skb, &tuple, sizeof(tuple.ipv4), p->ip.protocol);
}

static __always_inline bool plain6(struct __sk_buff* skb, struct packet6* p) {
  if (load(skb, 0, p, sizeof(*p)) < 0 || p->ip.hop_limit <= 1) return false;
  if (p->ip.nexthdr != IPPROTO_TCP && p->ip.nexthdr != IPPROTO_UDP) return false;
  struct bpf_sock_tuple tuple = {};
  __builtin_memcpy(tuple.ipv6.saddr, &p->ip.saddr, 16);
  __builtin_memcpy(tuple.ipv6.daddr, &p->ip.daddr, 16);
  tuple.ipv6.sport = p->source;
  tuple.ipv6.dport = p->destination;
  return !tracked(skb, &tuple, sizeof(tuple.ipv6), p->ip.nexthdr);
}

/* The packet fits the interface, or the stack has to say that it does not. */
static __always_inline bool fits(struct __sk_buff* skb, __u32 interface) {
  __u32 mtu = 0;
  return bpf_check_mtu(skb, interface, &mtu, 0, BPF_MTU_CHK_SEGS) == 0;
}

static __always_inline void age4(struct __sk_buff* skb, const struct iphdr* ip) {
  const __u32 at = sizeof(struct ethhdr);
  __be16 from = bpf_htons((__u16)(ip->ttl << 8 | ip->protocol));
  __be16 to = bpf_htons((__u16)((ip->ttl - 1) << 8 | ip->protocol));
  __u8 ttl = ip->ttl - 1;
  bpf_l3_csum_replace(skb, at + offsetof(struct iphdr, check), from, to, sizeof(to));
  bpf_skb_store_bytes(skb, at + offsetof(struct iphdr, ttl), &ttl, sizeof(ttl), 0);
}

static __always_inline void age6(struct __sk_buff* skb, const struct ipv6hdr* ip) {
  __u8 left = ip->hop_limit - 1;
  bpf_skb_store_bytes(skb, sizeof(struct ethhdr) + offsetof(struct ipv6hdr, hop_limit), &left,
                      sizeof(left), 0);
}

/* After egw_pod has said: steer. egw_tunnel does the rest at the tunnel device. */
SEC("tc")
int egw_pod_fast(struct __sk_buff* skb) {
  int verdict = pod(skb);
  const struct egw_settings* s = read_settings();
  if (!s || (skb->mark & s->slot_mask) != s->slot_early || !fits(skb, s->tunnel)) return verdict;
  if (skb->protocol == bpf_htons(ETH_P_IP)) {
    struct packet4 p;
    if (!plain4(skb, &p)) return verdict;
    age4(skb, &p.ip);
  } else {
    struct packet6 p;
    if (!plain6(skb, &p)) return verdict;
    age6(skb, &p.ip);
  }
  bpf_skb_store_bytes(skb, ETH_ALEN, s->mac, ETH_ALEN, 0);
  skb->mark = s->slot_steer | (skb->priority >> EGW_EARLY_SHIFT & EGW_ID_MASK);
  skb->priority = 0;
  return bpf_redirect(s->tunnel, 0);
}

/* Answers to what egw_pod_fast has sent: to the pod, which the route says where it is. */
SEC("tc")
int egw_back_fast(struct __sk_buff* skb) {
  if (skb->mark & EGW_ID_MASK) return NEXT;
  struct bpf_fib_lookup route = {.ifindex = skb->ingress_ifindex};
  if (skb->protocol == bpf_htons(ETH_P_IP)) {
    struct packet4 p;
    if (load(skb, 0, &p.ip, sizeof(p.ip)) < 0) return NEXT;
    if (!find4(p.ip.daddr) || !plain4(skb, &p)) return NEXT;
    route.family = 2; /* AF_INET */
    route.ipv4_src = p.ip.saddr;
    route.ipv4_dst = p.ip.daddr;
    long found = bpf_fib_lookup(skb, &route, sizeof(route), 0);
    if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH) return NEXT;
    if (!fits(skb, route.ifindex)) return NEXT;
    age4(skb, &p.ip);
  } else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
    struct packet6 p;
    struct egw_address6 destination;
    if (load(skb, 0, &p.ip, sizeof(p.ip)) < 0) return NEXT;
    __builtin_memcpy(&destination, &p.ip.daddr, sizeof(destination));
    if (!bpf_map_lookup_elem(&endpoints6, &destination) || !plain6(skb, &p)) return NEXT;
    route.family = 10; /* AF_INET6 */
    __builtin_memcpy(route.ipv6_src, &p.ip.saddr, 16);
    __builtin_memcpy(route.ipv6_dst, &p.ip.daddr, 16);
    long found = bpf_fib_lookup(skb, &route, sizeof(route), 0);
    if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH) return NEXT;
    if (!fits(skb, route.ifindex)) return NEXT;
    age6(skb, &p.ip);
  } else {
    return NEXT;
  }
  return bpf_redirect_neigh(route.ifindex, NULL, 0, 0);
}

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
    return enter(skb, peer->mac, 0);
  }
  /* Directed by the tables of the netlink datapath, which this one follows or precedes. */
  if (slot == s->slot_outer) return NEXT;
  if (!own) return drop(EGW_NOT_STEERED);
  skb->mark = 0;
  return NEXT;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
