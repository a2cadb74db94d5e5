/* fastPath: straight into the tunnel and back. Part of egw.bpf.c. */
#ifndef EGW_EBPF_FAST_H
#define EGW_EBPF_FAST_H

/* Of linux/icmp.h and linux/icmpv6.h, which need the C library. */
#define ICMP_HEADER 8
#define ICMP_DEST_UNREACH 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12
#define ICMPV6_DEST_UNREACH 1
#define ICMPV6_PARAMPROB 4

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

static __always_inline bool tracked4(struct __sk_buff* skb, const struct packet4* p) {
  struct bpf_sock_tuple tuple = {};
  tuple.ipv4.saddr = p->ip.saddr;
  tuple.ipv4.daddr = p->ip.daddr;
  tuple.ipv4.sport = p->source;
  tuple.ipv4.dport = p->destination;
  return tracked(skb, &tuple, sizeof(tuple.ipv4), p->ip.protocol);
}

static __always_inline bool tracked6(struct __sk_buff* skb, const struct packet6* p) {
  struct bpf_sock_tuple tuple = {};
  __builtin_memcpy(tuple.ipv6.saddr, &p->ip.saddr, 16);
  __builtin_memcpy(tuple.ipv6.daddr, &p->ip.daddr, 16);
  tuple.ipv6.sport = p->source;
  tuple.ipv6.dport = p->destination;
  return tracked(skb, &tuple, sizeof(tuple.ipv6), p->ip.nexthdr);
}

static __always_inline bool with_ports(__u8 protocol) {
  return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
}

/* Plain TCP and UDP; all else goes the long way. */
static __always_inline bool plain4(struct __sk_buff* skb, struct packet4* p) {
  if (load(skb, 0, p, sizeof(*p)) < 0 || p->ip.ihl != 5 || p->ip.ttl <= 1) return false;
  if (p->ip.frag_off & bpf_htons(0x3fff)) return false;
  return with_ports(p->ip.protocol) && !tracked4(skb, p);
}

static __always_inline bool plain6(struct __sk_buff* skb, struct packet6* p) {
  if (load(skb, 0, p, sizeof(*p)) < 0 || p->ip.hop_limit <= 1) return false;
  return with_ports(p->ip.nexthdr) && !tracked6(skb, p);
}

/* An ICMP error about what the receiver has sent by the fast way: nobody here knows the connection
 * that it belongs to, the gateway does. */
static __always_inline bool error4(struct __sk_buff* skb, const struct iphdr* ip) {
  struct {
    __u8 icmp[ICMP_HEADER]; /* the first is the type */
    struct packet4 about;
  } e;
  if (ip->protocol != IPPROTO_ICMP || ip->ihl != 5 || ip->ttl <= 1) return false;
  if ((ip->frag_off & bpf_htons(0x3fff)) || load(skb, sizeof(*ip), &e, sizeof(e)) < 0) return false;
  if (e.icmp[0] != ICMP_DEST_UNREACH && e.icmp[0] != ICMP_TIME_EXCEEDED &&
      e.icmp[0] != ICMP_PARAMETERPROB) {
    return false;
  }
  return e.about.ip.saddr == ip->daddr && e.about.ip.ihl == 5 && with_ports(e.about.ip.protocol) &&
         !tracked4(skb, &e.about);
}

static __always_inline bool error6(struct __sk_buff* skb, const struct ipv6hdr* ip) {
  struct {
    __u8 icmp[ICMP_HEADER];
    struct packet6 about;
  } e;
  if (ip->nexthdr != IPPROTO_ICMPV6 || ip->hop_limit <= 1) return false;
  if (load(skb, sizeof(*ip), &e, sizeof(e)) < 0) return false;
  if (e.icmp[0] < ICMPV6_DEST_UNREACH || e.icmp[0] > ICMPV6_PARAMPROB) return false;
  for (int i = 0; i < 4; ++i) {
    if (e.about.ip.saddr.in6_u.u6_addr32[i] != ip->daddr.in6_u.u6_addr32[i]) return false;
  }
  return with_ports(e.about.ip.nexthdr) && !tracked6(skb, &e.about);
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

/* No checksum of the header changes with it, as that of IPv4 does: the device's sum must. */
static __always_inline void age6(struct __sk_buff* skb, const struct ipv6hdr* ip) {
  __u8 left = ip->hop_limit - 1;
  bpf_skb_store_bytes(skb, sizeof(struct ethhdr) + offsetof(struct ipv6hdr, hop_limit), &left,
                      sizeof(left), BPF_F_RECOMPUTE_CSUM);
}

/* After egw_pod has said: steer. egw_tunnel does the rest at the tunnel device. */
SEC("tc")
int egw_pod_fast(struct __sk_buff* skb) {
  int verdict = pod(skb);
  const struct egw_settings* s = read_settings();
  /* A tag would go into the tunnel; without a tunnel there is only the host's way. */
  if (!s || !s->tunnel || skb->vlan_present) return verdict;
  if ((skb->mark & s->slot_mask) != s->slot_early || !fits(skb, s->tunnel)) return verdict;
  if (skb->protocol == bpf_htons(ETH_P_IP)) {
    struct packet4 p;
    if (!plain4(skb, &p)) return verdict;
    age4(skb, &p.ip);
  } else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
    struct packet6 p;
    if (!plain6(skb, &p)) return verdict;
    age6(skb, &p.ip);
  } else {
    return verdict;
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
    struct iphdr ip = p.ip;
    if (!find4(ip.daddr) || (!plain4(skb, &p) && !error4(skb, &ip))) return NEXT;
    route.family = 2; /* AF_INET */
    route.ipv4_src = ip.saddr;
    route.ipv4_dst = ip.daddr;
    long found = bpf_fib_lookup(skb, &route, sizeof(route), 0);
    if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH) return NEXT;
    if (!fits(skb, route.ifindex)) return NEXT;
    age4(skb, &ip);
  } else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
    struct packet6 p;
    struct egw_address6 destination;
    if (load(skb, 0, &p.ip, sizeof(p.ip)) < 0) return NEXT;
    __builtin_memcpy(&destination, &p.ip.daddr, sizeof(destination));
    struct ipv6hdr ip = p.ip;
    if (!bpf_map_lookup_elem(&endpoints6, &destination)) return NEXT;
    if (!plain6(skb, &p) && !error6(skb, &ip)) return NEXT;
    route.family = 10; /* AF_INET6 */
    __builtin_memcpy(route.ipv6_src, &ip.saddr, 16);
    __builtin_memcpy(route.ipv6_dst, &ip.daddr, 16);
    long found = bpf_fib_lookup(skb, &route, sizeof(route), 0);
    if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH) return NEXT;
    if (!fits(skb, route.ifindex)) return NEXT;
    age6(skb, &ip);
  } else {
    return NEXT;
  }
  return bpf_redirect_neigh(route.ifindex, NULL, 0, 0);
}

#endif /* EGW_EBPF_FAST_H */
