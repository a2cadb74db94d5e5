// TunnelPing: ICMP echo through one interface, to learn which peers answer over the tunnel. Called
// by the agent's reachability loop (framework/runtime), on its event loop: nothing here blocks.
//
// RFC 792, RFC 4443; raw(7), with ICMP_FILTER so that only echo replies reach the socket. Needs
// CAP_NET_RAW.
#pragma once

#include <cstdint>
#include <optional>

#include "egw/model/address.hpp"
#include "egw/model/result.hpp"

namespace egw::net {

class TunnelPing {
 public:
  // interface: packets leave by it and replies count only if they came in by it.
  static Result<TunnelPing> open(const std::string& interface, model::Family family);
  TunnelPing(TunnelPing&& other) noexcept;
  TunnelPing& operator=(TunnelPing&&) = delete;
  ~TunnelPing();

  // Readable when a reply may have come.
  [[nodiscard]] int descriptor() const { return fd_; }
  // sequence: given back with the reply. An error of this one address (no route, no neighbour)
  // only.
  Result<void> send(const model::Address& to, std::uint16_t sequence);
  // The sender of the next reply to a ping of this object with that sequence; nullopt: none is
  // there.
  std::optional<model::Address> receive(std::uint16_t sequence);

 private:
  TunnelPing(int fd, model::Family family, std::uint16_t id);
  int fd_;
  model::Family family_;
  std::uint16_t id_;
};

}  // namespace egw::net
