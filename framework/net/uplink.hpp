// Uplink: finds the interface towards the outside (tunnelDetectMethod) and follows its state by
// rtnetlink events: carrier, addresses, default route.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "egw/model/address.hpp"
#include "egw/model/node_state.hpp"
#include "egw/model/result.hpp"

namespace egw::net {

struct UplinkState {
  std::string name;
  unsigned index = 0;
  bool present = false;
  bool carrier = false;  // IFF_UP and IFF_LOWER_UP
  model::Mac mac{};
  model::Address ipv4, ipv6;  // the address that the kernel prefers as source; IPv6: global scope
  unsigned mtu = 0;
  friend bool operator==(const UplinkState&, const UplinkState&) = default;
};

class UplinkWatch {
 public:
  // method: "defaultRouteInterface" or "interface=NAME". on_change: on the watch's own thread, at
  // once for carrier loss, with the new state; also once at start.
  static Result<std::unique_ptr<UplinkWatch>> start(
      std::string method, std::function<void(const UplinkState&)> on_change);
  ~UplinkWatch();

 private:
  UplinkWatch();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace egw::net
