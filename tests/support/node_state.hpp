// A node's state for tests of what datapaths make of one: both families, no objects yet.
#pragma once

#include <cstdint>
#include <string>

#include "egw/sdk/datapath_state.hpp"

namespace egw::test {

inline sdk::Address addr(const std::string& text) { return *sdk::Address::parse(text); }

inline sdk::State node_state() {
  sdk::State s;
  s.node.enable_ipv4 = s.node.enable_ipv6 = true;
  s.node.name = "n1";
  s.node.tunnel_device = "egress.vxlan";
  s.node.parent_device = "eth0";
  s.node.underlay = s.node.parent_v4 = addr("10.6.0.11");
  s.node.tunnel_mac = {2, 0, 0, 0, 0, 1};
  s.node.slot_mask = 0xff000000;
  s.node.ct_mask = 0xfff80000;
  return s;
}

// i: 1 and more; named "p<i>".
inline sdk::Peer peer(std::uint8_t i) {
  sdk::Peer p;
  p.name = "p" + std::to_string(i);
  p.underlay = sdk::Address::v4(10, 6, 1, i);
  p.mac = {2, 0xaa, 0, 0, 0, i};
  return p;
}

}  // namespace egw::test
