// Interfaces: the network interfaces of this network namespace with their addresses, and the
// default routes, followed by rtnetlink events. Used by the announcer and the uplink watch, each
// with one of its own on its own thread; not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "egw/model/address.hpp"
#include "egw/model/node_state.hpp"
#include "egw/model/result.hpp"

namespace egw::net {

struct InterfaceAddress {
  model::Address address;
  unsigned length = 0;      // of its prefix
  unsigned scope = 0;       // RT_SCOPE_*
  std::uint32_t flags = 0;  // IFA_F_*
  friend bool operator==(const InterfaceAddress&, const InterfaceAddress&) = default;
};

struct Interface {
  unsigned index = 0;
  std::string name;
  unsigned flags = 0;     // IFF_*
  bool ethernet = false;  // ARPHRD_ETHER
  model::Mac mac{};
  unsigned mtu = 0;
  std::vector<InterfaceAddress> addresses;
  [[nodiscard]] bool up() const;       // IFF_UP
  [[nodiscard]] bool carrier() const;  // IFF_UP and IFF_LOWER_UP
  friend bool operator==(const Interface&, const Interface&) = default;
};

struct DefaultRoute {  // of the main table
  model::Family family = model::Family::kNone;
  std::uint32_t metric = 0;
  unsigned index = 0;  // interface
  friend auto operator<=>(const DefaultRoute&, const DefaultRoute&) = default;
};

class Interfaces {
 public:
  // Subscribes and reads everything. Fails when the kernel refuses a netlink socket.
  static Result<std::unique_ptr<Interfaces>> open();
  ~Interfaces();
  Interfaces(const Interfaces&) = delete;
  Interfaces& operator=(const Interfaces&) = delete;

  // Readable when events wait.
  [[nodiscard]] int fd() const;
  // Takes in what waits, without blocking. true: something that is kept here has changed. After an
  // overrun of the socket everything is read anew. After a failure it is to be called again, as no
  // event may come; what was known stays until then.
  Result<bool> read();

  [[nodiscard]] const std::map<unsigned, Interface>& all() const;  // by index
  [[nodiscard]] const Interface* find(unsigned index) const;
  [[nodiscard]] const Interface* find(const std::string& name) const;
  // Indexes of interfaces that went since the last call; one may be in use again by a new
  // interface.
  [[nodiscard]] std::vector<unsigned> take_removed();
  // Sorted: IPv4 before IPv6, best metric first.
  [[nodiscard]] const std::vector<DefaultRoute>& default_routes() const;

 private:
  Interfaces();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace egw::net
