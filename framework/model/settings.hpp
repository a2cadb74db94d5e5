// The settings that core and runtime work with, after configuration has been read and checked
// (framework/app/config). Defaults are the product's defaults.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "egw/model/address.hpp"
#include "egw/model/selector.hpp"

namespace egw::model {

struct TunnelInterfaceRule {
  LabelSelector node_selector;
  std::string interface_name;
};

struct Settings {
  bool enable_ipv4 = true;
  bool enable_ipv6 = false;
  Prefix tunnel_v4;                                            // tunnelIpv4Subnet, 172.31.0.0/16
  Prefix tunnel_v6;                                            // tunnelIpv6Subnet, fd11::/112
  std::string tunnel_detect_method = "defaultRouteInterface";  // or "interface=NAME"
  std::vector<TunnelInterfaceRule> tunnel_detect_custom;
  Family underlay = Family::kV4;  // tunnelUnderlay
  std::string vxlan_name = "egress.vxlan";
  std::uint16_t vxlan_port = 7789;
  std::uint32_t vxlan_id = 100;
  bool vxlan_disable_checksum_offload = false;
  std::vector<std::string> announce_exclude{"^cali.*"};  // regular expressions, anchored both ends
  bool failover = true;                                  // gatewayFailover.enable
  std::chrono::milliseconds tunnel_monitor_period{5000};
  std::chrono::milliseconds tunnel_update_period{5000};
  std::chrono::milliseconds eip_eviction_timeout{15000};
  std::string pod_cidr_mode = "auto";
  bool detect_cluster_ip = true;
  bool detect_node_ip = true;
  std::vector<std::string> extra_cidr;
  std::uint32_t slot_mask = 0xff000000;
  std::uint32_t ct_mask = 0xfff80000;
  bool manage_forwarding = false;
  bool boot_drop = false;
  bool endpoint_slices = true;
  std::uint32_t max_endpoints_per_slice = 100;
};

}  // namespace egw::model
