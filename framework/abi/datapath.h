/* Datapath: makes the kernel of one node agree with a desired state. All operations are called on
 * the instance's one thread, in the namespaces of the process; a plugin never changes namespace.
 *
 * Wire format between nodes, the same for all datapaths: VXLAN with the Group-Policy extension, the
 * group id is the egress id; fixed FDB and neighbour entries (docs/write-a-datapath.md, "The wire format"). */
#ifndef EGW_ABI_DATAPATH_H
#define EGW_ABI_DATAPATH_H

#include "egw/abi/types.h"

#ifdef __cplusplus
extern "C" {
#endif

#define EGW_EGRESS_ID_MIN 1u
#define EGW_EGRESS_ID_MAX 16383u /* 14 bits: mark bits 0x4000 and 0x8000 are kube-proxy's */

/* This node: who it is, how its tunnel device must look, which mark bits are ours. */
typedef struct egw_node_config {
  uint32_t struct_size;
  uint8_t enable_ipv4; /* 0 or 1: the families that are translated */
  uint8_t enable_ipv6;
  uint8_t disable_checksum_offload; /* 1: no transmit checksum offload at the tunnel device */
  uint8_t reserved;
  egw_str name;            /* of the node */
  egw_str tunnel_device;   /* e.g. "egress.vxlan"; at most 15 bytes */
  uint32_t tunnel_vni;     /* 1..16777215 */
  uint16_t tunnel_port;    /* UDP */
  uint8_t tunnel_mac[6];
  egw_prefix tunnel_v4;    /* this node's tunnel address with the subnet's length; family 0: none.
                              The host bits are the node's own and therefore not zero. */
  egw_prefix tunnel_v6;
  egw_str parent_device;   /* the underlay interface */
  egw_addr underlay;       /* this node's outer source address */
  egw_addr parent_v4;      /* this node's addresses towards the outside: source of egresses of kind */
  egw_addr parent_v6;      /*   NODE and of action NODEIP */
  uint32_t slot_mask;      /* fwmark bits that are egw's: a contiguous run of 4..8 of the upper 16 */
  uint32_t ct_mask;        /* conntrack mark bits for the peer number; a contiguous run of bits */
  egw_span cluster_prefixes; /* egw_prefix; destinations never steered */
} egw_node_config;

/* Another node, as the tunnel sees it. Key: name. */
typedef struct egw_peer {
  uint32_t struct_size;
  uint32_t reserved;
  egw_str name;
  egw_addr underlay;
  egw_addr tunnel_v4;
  egw_addr tunnel_v6;
  uint8_t mac[6];
  uint8_t reserved2[2];
  egw_span pod_cidrs; /* egw_prefix; may be empty */
} egw_peer;

typedef enum egw_egress_kind { EGW_EGRESS_ADDRESS = 0, EGW_EGRESS_NODE = 1 } egw_egress_kind;
typedef enum egw_owner_kind { EGW_OWNER_NONE = 0, EGW_OWNER_SELF = 1, EGW_OWNER_PEER = 2 } egw_owner_kind;

/* An egress IP (pair). Key: id. */
typedef struct egw_egress {
  uint32_t struct_size;
  uint32_t id;         /* EGW_EGRESS_ID_MIN..MAX */
  uint8_t kind;        /* egw_egress_kind; NODE: v4, v6 are none and the node's parent addresses count */
  uint8_t owner;       /* egw_owner_kind */
  uint8_t may_serve;   /* 1: this node is one of the gateway's nodes and translates the id if a packet
                          for it arrives, owner or not */
  uint8_t reserved;
  egw_addr v4;         /* family 0: the egress has no address of that family */
  egw_addr v6;
  egw_str owner_peer;  /* EGW_OWNER_PEER: an egw_peer's name */
} egw_egress;

typedef enum egw_action_kind {
  EGW_ACTION_EGRESS = 1, /* steer to the owner of `egress_id`, which gives the packet the EIP */
  EGW_ACTION_DROP = 2,
  EGW_ACTION_NODEIP = 3, /* main table, source made this node's own parent address */
  EGW_ACTION_BYPASS = 4  /* leave the packet alone: no policy covers the destination */
} egw_action_kind;

/* One prefix of a class. Prefixes of a class may nest; the longest wins; what none covers is left
 * alone. cluster_prefixes of the node win over all of them. */
typedef struct egw_class_rule {
  uint32_t struct_size;
  uint8_t action; /* egw_action_kind */
  uint8_t reserved[3];
  egw_prefix destination;
  uint32_t egress_id; /* EGW_ACTION_EGRESS */
} egw_class_rule;

/* What applies to a set of endpoints. Key: id, any value but 0. It lasts as long as the instance: after
 * a restart the same content may come under another id, which must change nothing in the kernel. */
typedef struct egw_class {
  uint32_t struct_size;
  uint32_t id;
  egw_span rules; /* egw_class_rule, both families */
} egw_class;

/* A selected pod's address on this node. Key: address. */
typedef struct egw_endpoint {
  uint32_t struct_size;
  uint32_t class_id;
  egw_addr address;
} egw_endpoint;

/* A step from state `base` to state `generation`. full: the upserts are everything there is, the
 * deletes are empty, `base` is not looked at, and the plugin compares with the kernel and repairs.
 * Otherwise a plugin whose state is not `base` answers EGW_NEED_FULL and changes nothing. Deleting
 * what is not there succeeds. Objects refer to each other by key; the state after a change is
 * consistent, the order inside a change is not defined. */
typedef struct egw_change {
  uint32_t struct_size;
  uint32_t full; /* 0 or 1 */
  uint64_t generation;
  uint64_t base;
  const egw_node_config* node; /* NULL: unchanged; never NULL when full */
  egw_span peers;              /* upserts: egw_peer */
  egw_span egresses;           /* egw_egress */
  egw_span classes;            /* egw_class */
  egw_span endpoints;          /* egw_endpoint */
  egw_span deleted_peers;      /* egw_str: names */
  egw_span deleted_egresses;   /* uint32_t: ids */
  egw_span deleted_classes;    /* uint32_t: ids */
  egw_span deleted_endpoints;  /* egw_addr */
} egw_change;

typedef enum egw_object_type {
  EGW_OBJECT_NODE = 1,
  EGW_OBJECT_PEER = 2,
  EGW_OBJECT_EGRESS = 3,
  EGW_OBJECT_CLASS = 4,
  EGW_OBJECT_ENDPOINT = 5
} egw_object_type;

/* Takes what apply did. `failed`: this object alone could not be programmed (apply then returns
 * EGW_PARTIAL). `repaired`: `count` kernel objects of that name (e.g. "route", "nft element") had
 * been changed or removed by somebody else and were put back. */
typedef struct egw_apply_report {
  void* ctx;
  void (*failed)(void* ctx, uint32_t object_type, egw_str key, int32_t sys_errno, egw_str message);
  void (*repaired)(void* ctx, egw_str what, uint64_t count);
} egw_apply_report;

/* Takes a setting of the host that the datapath needs. `key` as under /proc/sys with slashes
 * ("net/ipv4/conf/all/src_valid_mark"). The host writes what differs, remembers the old value and
 * restores it at purge. forwarding: 1 if the key switches forwarding (written only when the operator
 * allows it; otherwise the host reports the key as missing). */
typedef struct egw_sysctl_sink {
  void* ctx;
  void (*need)(void* ctx, egw_str key, egw_str value, uint32_t forwarding, egw_str why);
} egw_sysctl_sink;

/* Takes probe's findings: ok 1 passed, 0 failed. `code` is stable ("MarkConflict"). */
typedef struct egw_probe_sink {
  void* ctx;
  void (*finding)(void* ctx, uint32_t ok, egw_str code, egw_str message);
} egw_probe_sink;

/* Takes a counter: monotonic since open. `labels`: "k=v,k=v". */
typedef struct egw_counter_sink {
  void* ctx;
  void (*counter)(void* ctx, egw_str name, egw_str labels, uint64_t value);
} egw_counter_sink;

typedef struct egw_datapath_host {
  uint32_t struct_size;
  uint32_t reserved;
  egw_host base;
  /* Somebody else changed kernel state of ours: the host answers with a full apply at once. From any
   * thread. */
  void (*drifted)(void* ctx, egw_str what);
  void* drifted_ctx;
  /* Since 1.1. A folder (0700) that outlives the process and that all plugins of this plugin's layout
   * have in common on this node: what a successor must know of what the kernel holds (the numbers in
   * connections' marks). Empty without a layout. */
  egw_str layout_dir;
} egw_datapath_host;

typedef struct egw_datapath_ops {
  uint32_t struct_size;
  uint32_t reserved;
  /* Changes nothing. Looks at kernel, privileges, other people's rules on our mark bits. EGW_OK, or
   * EGW_UNSUPPORTED when a finding forbids running. `node` as it will be given to apply. */
  int32_t (*probe)(egw_str config_json, const egw_node_config* node, const egw_probe_sink* out,
                   const egw_error_sink* error);
  /* state_dir: a folder (0700) of this plugin's own that outlives the process. Changes nothing in
   * the kernel. */
  int32_t (*open)(egw_str config_json, egw_str state_dir, const egw_datapath_host* host,
                  void** instance, const egw_error_sink* error);
  /* Leaves the kernel as it is: a restart must not cut traffic. */
  void (*close)(void* instance);
  /* Idempotent. EGW_OK, EGW_PARTIAL, EGW_NEED_FULL, or a failure of the whole (then the kernel is
   * as it was as far as the plugin could see to it). */
  int32_t (*apply)(void* instance, const egw_change* change, const egw_apply_report* report,
                   const egw_error_sink* error);
  int32_t (*sysctls)(void* instance, const egw_sysctl_sink* out, const egw_error_sink* error);
  /* JSON: what of ours the kernel holds now, see docs/write-a-datapath.md. */
  int32_t (*observe)(void* instance, const egw_text_sink* out, const egw_error_sink* error);
  int32_t (*counters)(void* instance, const egw_counter_sink* out, const egw_error_sink* error);
  /* EGW_OK while what apply has programmed is there; else EGW_UNAVAILABLE with what is missing. Before
   * the first apply: EGW_OK if the kernel holds what a former instance has programmed. */
  int32_t (*health)(void* instance, const egw_error_sink* error);
  /* Deletes conntrack entries that carry an address as their translated source, both families; run
   * by the host when an EIP has left this node for good. */
  int32_t (*forget)(void* instance, const egw_addr* eip, const egw_error_sink* error);
  /* Removes everything of ours from the kernel, whoever left it there. The instance stays open. */
  int32_t (*purge)(void* instance, const egw_error_sink* error);
  /* Since 1.1, optional: where it is missing the host calls purge in its place. Another datapath of
   * the same layout has programmed this node for `node`, and goes on alone. Removes what is this
   * plugin's own, whoever left it, and leaves what the layout has in common - the tunnel device with
   * its addresses, FDB and neighbours, routes, rules, connections - as the successor has made it.
   * Idempotent; also called on an instance that never applied anything. */
  int32_t (*hand_over)(void* instance, const egw_node_config* node, const egw_error_sink* error);
} egw_datapath_ops;

#ifdef __cplusplus
}
#endif
#endif /* EGW_ABI_DATAPATH_H */
